"""Whether jobs can be submitted from here, and, with a job, what works on a node."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import distill
from distill.doctor.machine import Check
from distill.errors import UserError
from launcher import slurm
from launcher.commands.options import Asked
from launcher.script import software_lines, sources_line, where
from launcher.site import folders, load_site

if TYPE_CHECKING:
    from launcher.resources import Resources
    from launcher.site import Site

CLIENTS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel", "sinfo")
_NODE_MINUTES = 5


def slurm_checks(
    *, job: bool, site: str = "", gpus: int = 0, partition: str = "", account: str = ""
) -> list[Check]:
    """The rows of ``doctor --slurm``, and with ``job`` those of a node after them.

    Args:
        job: whether a node is examined, in a job.
        site: name of the profile that the job is started with; empty for none.
        gpus: GPUs that the job asks for.
        partition: its queue; empty for that of the site, or the default.
        account: who is charged; empty for that of the site, or the default.

    Raises:
        UserError: no such site, or a word that is no name.
    """
    profile = load_site(site)
    asked = Asked(gpus_per_node=gpus, partition=partition, account=account)
    wanted = asked.resources(profile)
    checks = [check() for check in (_clients, _controller, _nodes, _accounting, _sites)]
    if job and all(check.ok for check in checks if check.needed):
        checks += node_checks(wanted, profile)
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


def node_checks(wanted: Resources, site: Site) -> list[Check]:
    """What `pairdistill doctor` finds on a node, in a job of one task, as a rank would find it."""
    try:
        with slurm.clean_environment():
            answer = slurm.run_in_job(examination(wanted, site), seconds=60 * _NODE_MINUTES)
        rows = json.loads(answer)["checks"]
    except (UserError, ValueError, KeyError) as error:
        return [
            Check("a node", False, f"no answer: {error}", "see `sinfo`, and try `srun hostname`")
        ]
    return [Check(**{**row, "name": f"node: {row['name']}"}) for row in rows]


def examination(wanted: Resources, site: Site) -> str:
    """A script that ends as srun: with the site's modules, in its container, by its Python."""
    srun = ["srun", "--nodes=1", "--ntasks=1", f"--time={_NODE_MINUTES}", "--quiet"]
    srun += [f"--{option}={value}" for option, value in where(wanted, site).items()]
    srun += [*site.container, site.python or sys.executable, "-m", "distill", "doctor", "--json"]
    # Modules may say something, which is no part of the answer.
    lines = ["{ :", *software_lines(site), "} >&2", *_sources(site), f"exec {shlex.join(srun)}"]
    return "\n".join(lines)


def _sources(site: Site) -> list[str]:
    """Where a container's Python, which may know no pairdistill, finds this one, as ranks do.

    In a folder of other packages too it would find those, made for this Python: it is left alone.
    """
    folder = Path(distill.__file__).resolve().parents[1]
    if not site.python or folder.name in ("site-packages", "dist-packages"):
        return []
    return [sources_line(folder)]
