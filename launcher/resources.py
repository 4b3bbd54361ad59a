"""What a job asks for: nodes, ranks, GPUs, cores, memory, time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from distill.errors import UserError

_UNITS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?", re.ASCII)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)
_LONGEST_MIN = 365 * 24 * 60
DEFAULT_TIME = "24h"


@dataclass(frozen=True)
class Resources:
    """A request.

    Attributes:
        nodes: machines.
        ranks_per_node: processes on each.
        gpus_per_node: GPUs on each; 0 for none.
        cpus_per_rank: cores of each process.
        mem_gb: memory of each machine, in GB; 0 for the cluster's default.
        time_min: time limit of one start, in minutes; 0 for none, on this machine alone.
        partition: queue; empty for the cluster's default.
        account: who is charged; empty for the cluster's default.
        after: job that must end well first; empty for none.
        exclude: machines to do without, as Slurm lists hosts; empty for none.
    """

    nodes: int = 1
    ranks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_rank: int = 1
    mem_gb: int = 0
    time_min: int = 24 * 60
    partition: str = ""
    account: str = ""
    after: str = ""
    exclude: str = ""

    @property
    def world_size(self) -> int:
        """Number of ranks W."""
        return self.nodes * self.ranks_per_node

    @property
    def cpus_per_node(self) -> int:
        """Cores on each machine."""
        return self.ranks_per_node * self.cpus_per_rank


def minutes(text: str, *, name: str = "--time") -> int:
    """Minutes of a time limit such as `24h`, `90m`, `1d12h`, `2-00:00:00` or `12:30:00`.

    Args:
        text: the limit.
        name: what to call it in an error.

    Raises:
        UserError: any other form (`12:30` might be hours or minutes), or no time at all.
    """
    units, clock = _UNITS.fullmatch(text), _CLOCK.fullmatch(text)
    total = 0
    if text and units:
        days, hours, mins = (int(part or 0) for part in units.groups())
        total = (days * 24 + hours) * 60 + mins
    elif clock and int(clock[3]) < 60 and int(clock[4]) < 60:
        days, hours, mins, seconds = (int(part or 0) for part in clock.groups())
        total = (days * 24 + hours) * 60 + mins + (seconds > 0)
    if not 0 < total <= _LONGEST_MIN:
        raise UserError(
            f"{name} {text!r}: not a time limit", fix="write it as 24h, 90m, 1d12h or D-HH:MM:SS"
        )
    return total
