"""The one error users see: what is wrong, where, and how to mend it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in an input, a file or a setting; shown as one line, without a stack trace.

    Args:
        what: the thing at fault and what is wrong with it, with the offending value,
            e.g. ``"loss.temperature = -1.0: must be greater than 0"``.
        fix: what to do about it, in the imperative, e.g. ``"set it to 2 .. 4"``.

    The command line prints ``error: WHAT; FIX`` and leaves with :attr:`exit_status`.
    """

    exit_status = 2

    def __init__(self, what: str, *, fix: str = "") -> None:
        self.what = one_line(what)
        self.fix = one_line(fix)
        super().__init__(f"{self.what}; {self.fix}" if fix else self.what)


class TrainingStopped(UserError):
    """Training ended by itself (a non-finite loss, a stop signal) with its state saved or named."""

    exit_status = 3


@contextmanager
def told_of(where: str) -> Iterator[None]:
    """Errors of what is done meanwhile begin with ``where``: the setting or the node at fault.

    Raises:
        UserError: in place of another one, with the same fix.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error.what}", fix=error.fix) from error


def one_line(text: str) -> str:
    """``text`` with control characters escaped, so that no file name can break a line of output."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal 40`` where there is no name, as for most real-time signals."""
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")
