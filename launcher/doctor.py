"""Whether jobs can be submitted from here, and, with a job, what works on a node."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace

from distill.doctor.machine import Check
from distill.errors import UserError
from launcher import slurm
from launcher.site import folders, load_site

CLIENTS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel", "sinfo")
_NODE_MINUTES = 5


def slurm_checks(*, job: bool) -> list[Check]:
    """The rows of ``doctor --slurm``, and with ``job`` those of a node after them."""
    checks = [check() for check in (_clients, _controller, _nodes, _accounting, _sites)]
    if job and all(check.ok for check in checks if check.needed):
        checks += node_checks()
    return checks


def _clients() -> Check:
    missing = [name for name in CLIENTS if shutil.which(name) is None]
    if missing:
        fix = "use a login node of the cluster, or load its module"
        return Check("Slurm's commands", False, f"not on PATH: {', '.join(missing)}", fix)
    return Check("Slurm's commands", True, f"in {shutil.which('sbatch')}")


def _asked(name: str, fix: str, *argv: str, say: Callable[[str], str] = str.strip) -> Check:
    """A row that holds where a client answers."""
    try:
        return Check(name, True, say(slurm.ask(*argv)))
    except UserError as error:
        return Check(name, False, error.what, fix)


def _controller() -> Check:
    fix = "set SLURM_CONF, or ask whoever runs the cluster"
    return _asked("controller", fix, "scontrol", "ping", say=lambda text: text.splitlines()[0])


def _nodes() -> Check:
    """Partitions, with the nodes of each that could start a job now."""
    fix = "see `sinfo -R` for why nodes are down"
    return _asked("partitions", fix, "sinfo", "-h", "-o", "%P %a %D nodes %G", say=_joined)


def _joined(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines())


def _accounting() -> Check:
    """Jobs are submitted and followed without it; how they ended is known for some minutes only."""
    fix = "`status` forgets jobs soon without it: ask whoever runs the cluster for slurmdbd"
    argv = ("sacct", "-n", "-X", "-S", "now")
    return replace(_asked("accounting", fix, *argv, say=lambda _: "sacct answers"), needed=False)


def _sites() -> Check:
    """Every profile that can be named is one that can be read."""
    names = sorted({path.stem for folder in folders() for path in folder.glob("*.toml")})
    try:
        for name in names:
            load_site(name)
    except UserError as error:
        return Check("site profiles", False, error.what, error.fix)
    return Check("site profiles", True, ", ".join(names) or "none; see docs/slurm.md")


def node_checks() -> list[Check]:
    """What `pairdistill doctor` finds on a node, in a job of one task."""
    argv = ["srun", "--nodes=1", "--ntasks=1", f"--time={_NODE_MINUTES}", "--quiet"]
    argv += [sys.executable, "-m", "distill", "doctor", "--json"]
    try:
        with slurm.clean_environment():
            answer = slurm.run_in_job(argv, seconds=60 * _NODE_MINUTES)
        rows = json.loads(answer)["checks"]
    except (UserError, ValueError, KeyError) as error:
        return [
            Check("a node", False, f"no answer: {error}", "see `sinfo`, and try `srun hostname`")
        ]
    return [Check(**{**row, "name": f"node: {row['name']}"}) for row in rows]
