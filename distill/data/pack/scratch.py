"""The folder beside a pack in which it grows, and goes on growing after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import psutil

from distill.data.pack.journal import JOURNAL_NAME
from distill.data.pack.resume import finished_shards
from distill.errors import UserError
from distill.files import disk_errors, sync_folder, write_whole

_REQUEST_NAME, _LOCK_NAME = "request.json", "lock"
_WORTH_KEEPING = 1000
"""Photographs looked at, or pairs of finished shards, with which a folder outlives a failure."""


@contextmanager
def new_folder(out: Path, request: dict[str, Any]) -> Iterator[Path]:
    """A folder that becomes ``out`` if the block ends well.

    After a kill it is found again by the same request, with whatever is whole in it. After an
    error it stays where much work is in it, and else is removed.

    Raises:
        UserError: another process is packing to ``out``, or the disk is full or not writable.
    """
    partial = out.with_name(f".{out.name}.partial")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_replaced(out)
        partial.mkdir(exist_ok=True)
    with _locked(partial, out):
        _same_request(partial, out, request)
        try:
            yield partial
        except BaseException:
            if not _much_work(partial):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        for name in (_LOCK_NAME, _REQUEST_NAME):
            (partial / name).unlink()
        put_in_place(partial, out)


@contextmanager
def _locked(partial: Path, out: Path) -> Iterator[None]:
    """Held by one process, until it ends, however that may be."""
    with disk_errors(out):
        lock: TextIO = (partial / _LOCK_NAME).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{out}: another process is packing to it", fix="wait for it, or end it"
            ) from error
        yield


def _same_request(partial: Path, out: Path, request: dict[str, Any]) -> None:
    """Empties the folder unless it was begun by the same request."""
    text = json.dumps(request, sort_keys=True)
    file = partial / _REQUEST_NAME
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    for entry in partial.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != _LOCK_NAME:
            entry.unlink()
    write_whole(file, text.encode(), named=out)


def _much_work(partial: Path) -> bool:
    """Whether there are finished shards, or a large one, or many photographs were looked at."""
    shards = [each for folder in (partial, *partial.glob("*/")) for each in finished_shards(folder)]
    if len(shards) > 1 or sum(shard.pairs for shard in shards) >= _WORTH_KEEPING:
        return True
    journal = partial / JOURNAL_NAME
    if not journal.exists():
        return False
    with journal.open("rb") as lines:
        return sum(1 for _ in lines) >= _WORTH_KEEPING


def _remove_replaced(out: Path) -> None:
    """Removes packs that were being replaced when their packer was killed."""
    pattern = re.compile(re.escape(f".{out.name}.") + r"(\d+)\.old")
    for entry in out.parent.iterdir():
        owner = pattern.fullmatch(entry.name)
        if owner and (int(owner[1]) == os.getpid() or not psutil.pid_exists(int(owner[1]))):
            shutil.rmtree(entry, ignore_errors=True)


def put_in_place(partial: Path, out: Path) -> None:
    """Renames ``partial`` to ``out``; what stood there, if anything, is removed after that."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    with disk_errors(out):
        if out.exists():
            out.rename(old)
        partial.rename(out)
        sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)
