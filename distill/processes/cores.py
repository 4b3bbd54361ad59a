"""The CPU cores that are this process's to use."""

from __future__ import annotations

import os

from distill.errors import UserError

RANKS_A_CORE = 4
"""Ranks of which each takes hundreds of MB and seconds to start; one a core is enough on CPUs."""


def usable_cores() -> int:
    """Cores that this process may run on, at least 1; under a scheduler fewer than there are."""
    return len(os.sched_getaffinity(0))


def check_cores(ranks: int) -> None:
    """Refuses so many ranks that this machine would run out of memory before any of them works.

    Raises:
        UserError: more than `RANKS_A_CORE` for each core of this process.
    """
    cores = usable_cores()
    if ranks > RANKS_A_CORE * cores:
        raise UserError(
            f"--ranks {ranks}: this process has {cores} cores",
            fix=f"give one for each CUDA device, or on CPUs one a core; {RANKS_A_CORE * cores} is"
            " the most that is started",
        )
