"""Stop requests: a signal sets a flag, and the ranks act on it together at a step boundary.

A save is a collective, so no signal handler may start one. Ctrl-C, TERM and USR2 (which batch
systems send ahead of a time limit) are only remembered here; `distill.step` carries the flags to
all ranks with the losses, and `distill.measure` ends an evaluation, which may take minutes. Exit
status: 128 + the signal, so 130, 143 or 140. A hang-up (the terminal was closed) counts as a TERM,
unless it is ignored, as under nohup.

Before the ranks have met nothing is there to be saved, and no step ends what takes long: copies of
packs (`StopRequests.ending`) and the waits for ranks that make them (`distill.meeting`) end at
once, with the same exit status.

A second Ctrl-C leaves at once, by `os._exit`: a checkpoint becomes visible by one rename, so
nothing is left half-written. A second TERM or USR2 changes nothing: the save completes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

from distill.errors import UserError
from distill.processes.spawn import STOP_SIGNALS, as_stop

_Found = TypeVar("_Found")


class StoppedEarly(UserError):
    """A stop signal came, to this rank or to another, before there was anything to save.

    Args:
        by: the signal; the exit status is 128 + it.
        doing: what it ended, as "while packs were copied".
    """

    def __init__(self, by: signal.Signals, doing: str) -> None:
        super().__init__(f"stopped by {by.name} {doing}", fix="the same command goes on")
        self.by, self.exit_status = by, 128 + by


class _Cut(BaseException):
    """Raised wherever a stop signal finds the work that it ends; no error that work may catch."""


class StopRequests:
    """Remembers stop signals while its ``with`` block runs (in the main thread)."""

    def __init__(self) -> None:
        self._seen = [False] * len(STOP_SIGNALS)
        self._ends_work = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequests:
        heard = [*STOP_SIGNALS]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            heard.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._remember) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        place = STOP_SIGNALS.index(as_stop(number))
        if number == signal.SIGINT and self._seen[place]:
            os._exit(128 + number)
        self._seen[place] = True
        if self._ends_work:
            self._ends_work = False
            raise _Cut

    def ending(self, work: Callable[[], _Found], doing: str) -> _Found:
        """What ``work`` returns, unless a stop signal has come or comes: then it is cut short.

        Args:
            work: what may end anywhere, as if the process were killed; it imports nothing
                compiled, which an exception could break (`distill.processes.interrupt`).
            doing: for the error, as of `StoppedEarly`.

        Raises:
            StoppedEarly: this rank was asked to stop.
        """
        try:
            try:
                self._ends_work = True  # first, or a signal could come between the two
                if self.asked is None:
                    return work()
            finally:
                self._ends_work = False
        except _Cut:
            pass
        assert self.asked is not None
        raise StoppedEarly(self.asked, doing)

    @property
    def asked(self) -> signal.Signals | None:
        """The stop signal that this rank has received, if any."""
        return agreed_signal(self.flags)

    @property
    def flags(self) -> list[float]:
        """One number for each of `STOP_SIGNALS`, 1 where this rank has received it."""
        return [float(seen) for seen in self._seen]


def agreed_signal(flags: Sequence[float]) -> signal.Signals | None:
    """The signal that ranks agree on, from the sum of their flags; None to go on."""
    arrived = (number for number, flag in zip(STOP_SIGNALS, flags, strict=True) if flag)
    return next(arrived, None)
