"""Files by which one process at a time does something.

The kernel drops a lock when its holder dies, however it dies, so a file that is left never blocks.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distill.errors import UserError
from distill.files import disk_errors

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system answers that has no locks."""
_WORDS_BYTES = 200


def flocked(handle: int) -> bool:
    """Whether the lock of an open file is ours now; nobody is waited for.

    Raises:
        OSError: the file system has no locks (`NO_LOCKS`), or the file cannot be locked.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def no_locks(place: str, error: OSError) -> UserError:
    """What is said of a place whose file system has no locks."""
    return UserError(
        f"{place}: this file system has no locks ({error.strerror})",
        fix="choose another file system (Lustre: mount it with -o flock)",
    )


@contextmanager
def alone_at(lock: Path, named: Path, does: str) -> Iterator[None]:
    """Held for the length of the block by one process of all that name the same file.

    Args:
        lock: the file, made here and removed in the end.
        named: what errors speak of.
        does: what this process does there, as "is packing to it"; others are told.

    Raises:
        UserError: another process holds it, the file cannot be written, or there are no locks.
    """
    handle = _taken(lock, named, does)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _taken(lock: Path, named: Path, does: str) -> int:
    """An open file whose lock is ours and which still has its name."""
    while True:
        with disk_errors(named):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        ours = False
        try:
            if not flocked(handle):
                does = os.pread(handle, _WORDS_BYTES, 0).decode(errors="replace") or does
                raise UserError(f"{named}: another process {does}", fix="wait for it, or end it")
            ours = is_still(lock, handle)  # or its holder has just removed it
            if ours:
                with suppress(OSError):  # a full disk: the lock holds all the same
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, does.encode(), 0)
                return handle
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            lock.unlink(missing_ok=True)
            raise no_locks(str(named), error) from error
        finally:
            if not ours:
                os.close(handle)


def is_still(lock: Path, handle: int) -> bool:
    """Whether an open file is still the one of that name, which a holder may have removed."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
