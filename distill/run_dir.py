"""The one owner of every path of a run.

RUN/                      created with mode 0700: models of faces are personal data
    run.lock              held by flock while a job runs; names the holder
    config.toml           the resolved configuration of the newest start
    metrics.jsonl         one JSON object for each logged step
    tensorboard/          event files
    checkpoints/          step-NNNNNNNN/ folders, see `distill.checkpoint`
    report/               report.json and report.png of the last evaluation
    model.safetensors     the trained weights
    complete.json         written last: the run needs nothing more
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class RunDir:
    """Paths of the run that lives in ``root``; nothing is touched before `acquire`."""

    root: Path

    @property
    def lock(self) -> Path:
        """Lock file of the job that works here."""
        return self.root / "run.lock"

    @property
    def config_toml(self) -> Path:
        """Resolved configuration."""
        return self.root / "config.toml"

    @property
    def metrics(self) -> Path:
        """Scalars of the logged steps, one JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """Steps that went wrong, one JSON object a line."""
        return self.root / "events.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def report(self) -> Path:
        """Folder of the evaluation report."""
        return self.root / "report"

    @property
    def weights(self) -> Path:
        """Exported weights."""
        return self.root / "model.safetensors"

    @property
    def complete(self) -> Path:
        """Marker of a finished run."""
        return self.root / "complete.json"

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Create the folder if need be and hold its lock for the length of the block.

        The kernel drops the lock when the holder dies, however it dies, so a stale file never
        blocks. Only one process of a job (rank 0) may call this.

        Raises:
            UserError: another job works here (it is named), or the folder cannot be written.
        """
        handle = self._open_lock()
        try:
            self._lock(handle)
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_this_process()).encode())
            yield
            os.ftruncate(handle, 0)
        finally:
            os.close(handle)

    def _open_lock(self) -> int:
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
            return os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(
                f"run.dir = {str(self.root)!r}: the run folder cannot be written"
                f" ({error.strerror})",
                fix="choose another run.dir or give yourself write permission",
            ) from error

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"run.dir = {str(self.root)!r}: another job works here ({self._holder()})",
                fix="wait for it, stop it, or choose another run.dir",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise UserError(
                f"run.dir = {str(self.root)!r}: this file system has no locks ({error.strerror})",
                fix="choose another file system (Lustre: mount it with -o flock)",
            ) from error

    def _holder(self) -> str:
        try:
            holder = json.loads(self.lock.read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "its name is not readable"


def _this_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
