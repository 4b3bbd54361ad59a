"""Why a rank failed: a note that it leaves for whoever started it, before it leaves for good."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

NOTES = "PAIRDISTILL_NOTES"
"""Variable with the folder where a rank leaves a note of why it failed."""

_LOST_PEER = re.compile(
    r"closed by peer|connection was likely closed|connection reset|broken pipe|timed out waiting"
    r"|connection refused|remote process exited|socket(poll)? ?error|nccl.*(abort|remote)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Note:
    """Why a rank failed.

    Attributes:
        rank: the rank.
        when_ns: time since the epoch, nanoseconds.
        status: exit status.
        text: error message, ready to print.
        secondary: whether the rank only noticed that another one had gone.
    """

    rank: int
    when_ns: int
    status: int
    text: str
    secondary: bool


@contextlib.contextmanager
def notes_folder() -> Iterator[Path]:
    """A temporary folder for notes, there for as long as the block, however many days that takes.

    What is ten days old in /tmp is removed by systemd-tmpfiles, but not below a folder that
    somebody has locked. (Of other cleaners nothing is known: a note may not find its folder.)
    """
    with tempfile.TemporaryDirectory(prefix="pairdistill-") as folder:
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_SH)
            yield Path(folder)
        finally:
            os.close(handle)


def read_note(path: Path) -> Note | None:
    """The note that a rank left at ``path``; None where it left none, or a disk has damaged it."""
    try:
        return Note(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def lost_peer(error: BaseException | str) -> bool:
    """Whether an error, or its last line, only says that another rank has gone."""
    return bool(_LOST_PEER.search(str(error)))


def own_rank() -> int:
    """Which rank this is, also where a batch system started it and it has not found its place."""
    return int(os.environ.get("RANK") or os.environ["SLURM_PROCID"])


def leave(text: str, status: int, *, secondary: bool = False) -> NoReturn:
    """Say why to the parent, if there is one, and leave at once: threads may hang in collectives.

    Args:
        text: the error message.
        status: exit status of this process.
        secondary: whether this rank only noticed that another one had gone.
    """
    try:
        _write(Path(os.environ[NOTES]), Note(own_rank(), time.time_ns(), status, text, secondary))
    except (KeyError, OSError):  # nobody asked for one; or no folder, and the parent has the log
        sys.stderr.write(f"{text}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _write(notes: Path, note: Note) -> None:
    partial = notes / f"rank{note.rank}.part"
    partial.write_text(json.dumps(note.__dict__), encoding="utf-8")
    partial.rename(notes / f"rank{note.rank}.json")
