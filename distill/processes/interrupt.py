"""Ctrl-C where there is no run to save: one line, status 130, whatever was being done.

It raises `KeyboardInterrupt`, so that what was begun is cleared away. Two cases are different:

- in the middle of an import it leaves at once: compiled libraries answer an exception there with
  an abort (torch) or another error (numpy: "cannot load module more than once");
- any library may turn it into an error of its own: so it is remembered, and what fails after it
  was interrupted.

A run that trains has handlers of its own (`distill.processes.stop`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

_IMPORTING = "<frozen importlib._bootstrap>"
_came: list[int] = []


def watch_for_interrupts() -> None:
    """From now on Ctrl-C is remembered and interrupts; a third one does not wait for anything.

    The second may cut short a clean-up; what it leaves is cleared by the next run.
    """
    _came.clear()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # nohup, and jobs in the background
        signal.signal(signal.SIGINT, _interrupt)


def leave_on_interrupt() -> None:
    """From now on Ctrl-C ends this process at once: a rank's peers may hang, and it has no files.

    A clean-up would wait for them; a run that trains saves first (`distill.processes.stop`). One
    that came before and was kept waiting (`distill.processes.spawn`) is heard here.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda _number, _frame: leave_interrupted())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def clearing_up_when_ended() -> Iterator[None]:
    """A block that a TERM or a hang-up ends as Ctrl-C does, so that what it began is cleared away.

    The exit status is 128 + the signal. A second one, and one in an import, ends at once, as both
    do elsewhere.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        if _importing(frame):
            signal.raise_signal(number)
        sys.exit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)


def interrupted() -> bool:
    """Whether Ctrl-C has come."""
    return bool(_came)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if len(_came) > 2 or _importing(frame):
        leave_interrupted()
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is under way in ``frame`` or in one that called it."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def leave_interrupted() -> NoReturn:
    """Say so, and leave without any clean-up."""
    sys.stderr.write("error: interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)
