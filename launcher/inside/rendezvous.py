"""How ranks find each other, in three named ways; a partial environment is an error in each.

`slurm`     started by srun: place and meeting point from Slurm's variables
`torchrun`  RANK, WORLD_SIZE and the others are set already (also by `distill.processes.spawn`)
`single`    none of them: a job of one rank
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from distill.errors import UserError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SLURM = (
    *("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS"),
    *("SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST"),
)
_FIRST_PORT, _PORTS = 20_000, 12_000  # below the ports that systems give to clients


def way(environment: Mapping[str, str]) -> str:
    """`slurm`, `torchrun` or `single`."""
    if any(name in environment for name in _TORCHRUN):
        return "torchrun"
    # In a batch script SLURM_PROCID is set as well, but there is only one process and no step.
    return "slurm" if "SLURM_STEP_ID" in environment else "single"


def place(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of torchrun for this process, from whatever started it; empty for a single one.

    Raises:
        UserError: some of the variables are missing or make no sense; the first one is named.
    """
    how = way(environment)
    if how == "torchrun":
        _all_of(_TORCHRUN, environment)
        return {name: environment[name] for name in _TORCHRUN}
    if how == "single":
        return {}
    _all_of(_SLURM, environment)
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(_tasks_here(environment)),
        "MASTER_ADDR": first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(port(environment)),
    }


def _all_of(names: tuple[str, ...], environment: Mapping[str, str]) -> None:
    for name in names:
        if not environment.get(name):
            raise UserError(
                f"{name} is missing from the environment while others of"
                f" {', '.join(names)} are set",
                fix="start with `pairdistill submit`, srun or torchrun, or unset them all",
            )


def port(environment: Mapping[str, str]) -> int:
    """A port that all ranks of this start of the job agree on, and other jobs hardly have."""
    restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
    job, step = (int(environment[name]) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return _FIRST_PORT + (job * 37 + restart * 7 + step) % _PORTS


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Ranks on this node, from e.g. ``4(x2),3``: four on the first two nodes, three on the next."""
    counts: list[int] = []
    text = environment["SLURM_STEP_TASKS_PER_NODE"]
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE = {text!r}: not understood")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts[int(environment["SLURM_NODEID"])]


def first_host(nodes: str) -> str:
    """The first of Slurm's list of nodes, e.g. ``gpu07`` of ``gpu[07-09,12],cpu1``."""
    host = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes).partition(",")[0]
    if not host or set(host) & set("[]"):
        raise UserError(f"SLURM_STEP_NODELIST = {nodes!r}: not understood")
    return host
