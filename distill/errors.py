"""The one error users see: what is wrong, where, and how to mend it."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


class TryAgain(UserError):
    """What may pass by itself, such as a network file system that is out of date.

    It is no mistake: a job that ends with it is started again.
    """

    exit_status = 75  # EX_TEMPFAIL of sysexits.h


def as_user_error(error: Exception) -> UserError | None:
    """``error`` as users see it: itself, or what may not be done to a file; None: a fault of ours.

    Packs and runs of somebody else are looked at in many places; whichever comes first.
    """
    if isinstance(error, UserError):
        return error
    if not isinstance(error, PermissionError) or error.filename is None:
        return None
    path = Path(str(error.filename))
    return UserError(f"{path}: {error.strerror}", fix="" if _may_be_read(path) else _ASK)


_ASK = "if it is somebody else's, ask for `chmod -R g+rX` of it and of the folders above"


def _may_be_read(path: Path) -> bool:
    """Whether it was not reading that was refused: there is nothing yet, or it is no program."""
    try:
        wanted = os.R_OK | (os.X_OK if stat.S_ISDIR(path.stat().st_mode) else 0)
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(path, wanted, effective_ids=True)


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
