"""Standard streams that are not there: closed before the program began, or on a lost terminal."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

_STREAMS = ("stdin", "stdout", "stderr")
"""By their descriptors, 0 to 2."""


def open_closed_streams() -> None:
    """Lead nowhere what the program was started without (``<&- >&- 2>&-``).

    Else the next file that is opened takes its number, and gets what libraries print.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == number, "the lowest that is free"
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for number, name in enumerate(_STREAMS):
        if getattr(sys, name) is None:  # a library took the number since, as libffi does for itself
            setattr(sys, name, Path(os.devnull).open("w" if number else "r"))  # noqa: SIM115


def leave_lost_terminal() -> None:
    """Lead output nowhere whose terminal has been closed, so that nothing fails for it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if _hung_up(number):
            os.dup2(nowhere, number)
    os.close(nowhere)


def _hung_up(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
