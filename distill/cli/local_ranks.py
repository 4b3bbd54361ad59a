"""Commands that start themselves as several ranks on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from distill.errors import UserError


def wants_local_ranks(ranks: int) -> bool:
    """Whether ``--ranks`` asks for processes beside this one.

    Raises:
        UserError: it does, in a process that is a rank already.
    """
    if ranks > 1 and "WORLD_SIZE" in os.environ:
        raise UserError(
            f"--ranks {ranks} in a process that is a rank of WORLD_SIZE ="
            f" {os.environ['WORLD_SIZE']} already",
            fix="leave --ranks away under torchrun, or unset the variable",
        )
    return ranks > 1


def is_local_rank() -> bool:
    """Whether this process was started by `on_local_ranks`, which has found no mistake."""
    from distill.processes.spawn import PARENT

    return PARENT in os.environ


def on_local_ranks(words: Sequence[str], ranks: int) -> int:
    """Run this program with ``words`` on local ranks, with its own ``--debug``; the exit status."""
    from distill.processes.spawn import spawn_local

    debug = ["--debug"] if "--debug" in sys.argv else []
    return spawn_local([*debug, *words], ranks)
