"""The lock of a run folder: one job at a time works there.

The kernel drops the lock when the holder dies, however it dies, so a stale file never blocks.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distill.errors import UserError
from distill.locks import NO_LOCKS, flocked, no_locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN_LOCK_SECONDS = 120.0
"""How long an earlier start of the same job may still hold the lock."""
_LOOK_SECONDS = 1.0
"""How long a lock may be busy before it counts as that of a job: `is_held` has it for a moment."""
_POLL_SECONDS = 0.2


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock for the length of the block; its file, in the run folder, names the holder.

    An earlier start of the same Slurm job is waited for.

    Raises:
        UserError: another job holds it (it is named), or the file cannot be written.
    """
    handle = _opened(lock)
    try:
        _take(lock, handle)
        _say(handle, json.dumps(_this_process()).encode())
        yield
        _say(handle, b"")
    finally:
        os.close(handle)


def _say(handle: int, holder: bytes) -> None:
    """Name the holder, or nobody; a full disk keeps the name away, not the lock."""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.write(handle, holder)


def is_held(lock: Path) -> bool:
    """Whether some process holds a lock, as far as this one can see; it leaves no trace."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(handle)
    return False


def not_writable(run: Path, error: OSError) -> UserError:
    """The one-line form of ``error``, met while making a run folder or its lock."""
    return UserError(
        f"run.dir = {str(run)!r}: the run folder cannot be written ({error.strerror})",
        fix="choose another run.dir or give yourself write permission",
    )


def _opened(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_writable(lock.parent, error) from error


def _take(lock: Path, handle: int) -> None:
    began = time.monotonic()
    try:
        while not flocked(handle):
            patience = OWN_LOCK_SECONDS if _held_by_own_job(lock) else _LOOK_SECONDS
            if time.monotonic() - began > patience:
                raise BlockingIOError
            time.sleep(_POLL_SECONDS)
    except BlockingIOError as error:
        raise UserError(
            f"run.dir = {str(lock.parent)!r}: another job works here ({_holder(lock)})",
            fix="wait for it, stop it, or choose another run.dir",
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise no_locks(f"run.dir = {str(lock.parent)!r}", error) from error


def _read_holder(lock: Path) -> dict[str, Any]:
    holder = json.loads(lock.read_text(encoding="utf-8"))
    return dict(holder)


def _held_by_own_job(lock: Path) -> bool:
    try:
        job = _read_holder(lock).get("job")
    except (OSError, ValueError, TypeError):
        return False
    return job is not None and job == os.environ.get("SLURM_JOB_ID")


def _holder(lock: Path) -> str:
    try:
        holder = _read_holder(lock)
        job = f"job {holder['job']}, " if holder.get("job") else ""
        return f"{job}process {holder['pid']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its name is not readable"


def _this_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "job": os.environ.get("SLURM_JOB_ID"),
    }
