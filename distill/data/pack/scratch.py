"""The folder beside a pack in which it grows, and goes on growing after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from distill.data.manifest import EVALUATION_NAME, MANIFEST_NAME, TRAIN_NAME
from distill.data.pack.journal import JOURNAL_NAME
from distill.data.pack.resume import finished_shards, remove_what_only_a_resume_needs
from distill.data.pack.spool import SPOOL_NAME
from distill.data.pack.standing import REJECTED_NAME
from distill.errors import UserError
from distill.files import disk_errors, sync_folder, write_whole
from distill.locks import alone_at

_REQUEST_NAME, _PHOTOGRAPHS_NAME = "request.json", "photographs.sha256"
_PACKS = "is packing to it"
_WORTH_KEEPING = 1000
"""Photographs looked at, or pairs of finished shards, with which a folder outlives a failure."""


def place_of(out: Path) -> Path:
    """Where the pack will stand that a user calls ``out``: behind links, which stay."""
    return Path(os.path.realpath(out))


@contextmanager
def new_folder(place: Path, named: Path) -> Iterator[Path]:
    """A folder that becomes ``place`` if the block ends well.

    After a kill it is found again with whatever is whole in it (`begin` empties it for another
    request). After an error it stays where much work is in it, and else is removed.

    Args:
        place: of the pack, behind links.
        named: the same as the user knows it, for errors.

    Raises:
        UserError: another process is packing to it, it is a mount point, there are no locks, or
            the disk is full or not writable.
    """
    if place.is_mount():
        raise UserError(
            f"{named}: a mount point, which cannot be replaced", fix="name a folder below it"
        )
    with disk_errors(named):
        place.parent.mkdir(parents=True, exist_ok=True)
    with _alone(place, named, _PACKS):
        partial = place.with_name(f".{place.name}.partial")
        with disk_errors(named):
            partial.mkdir(exist_ok=True)
        try:
            yield partial
        except BaseException:
            if not _much_work(partial):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        with disk_errors(named):
            _remove_what_only_packers_need(partial)
            _put_in_place(partial, place)


def _alone(place: Path, named: Path, does: str) -> AbstractContextManager[None]:
    """One process at a time that changes what stands at a place of packs; see `alone_at`.

    The file is beside the folder, which a packer renames with all in it.
    """
    return alone_at(place.with_name(f".{place.name}.lock"), named, does)


@contextmanager
def without_packers(folder: Path, does: str) -> Iterator[None]:
    """No packer replaces a pack meanwhile; one would take half of the work away.

    Args:
        folder: of a pack, of two parts, or one of these, which a packer replaces both.
        does: what is done there, as of `alone_at`.

    Raises:
        UserError: a packer is at work, or another process that keeps them away.
    """
    place = place_of(folder)
    if place.name in (TRAIN_NAME, EVALUATION_NAME) and (place.parent / REJECTED_NAME).exists():
        place = place.parent
    if place.is_dir() and os.access(place.parent, os.W_OK):  # else no packer can
        with _alone(place, folder, does):
            yield
    else:
        yield


def begin(partial: Path, named: Path, request: dict[str, Any], *, anew: bool) -> None:
    """Empties the folder unless it was begun by the same request.

    Args:
        partial: the folder.
        named: what errors speak of.
        request: what it is to hold.
        anew: empty it whoever began it.
    """
    text = json.dumps(request, sort_keys=True)
    file = partial / _REQUEST_NAME
    if not anew and file.exists() and file.read_text(encoding="utf-8") == text:
        return
    with disk_errors(named):
        for entry in partial.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    write_whole(file, text.encode(), named=named)


def keep_shards_of(digest: str, partial: Path, named: Path) -> None:
    """From here on shards are of these photographs; those of others do not count as finished.

    Args:
        digest: of the photographs, as the manifest has it.
        partial: the folder.
        named: what errors speak of.
    """
    file = partial / _PHOTOGRAPHS_NAME
    if file.exists() and file.read_text(encoding="utf-8") == digest:
        return
    with disk_errors(named):
        for folder in _with_parts(partial):
            (folder / MANIFEST_NAME).unlink(missing_ok=True)
            remove_what_only_a_resume_needs(folder)
    write_whole(file, digest.encode(), named=named)


def _with_parts(partial: Path) -> list[Path]:
    """The folder itself and those of its parts."""
    return [partial, *partial.glob("*/")]


def _much_work(partial: Path) -> bool:
    """Whether the pack is whole, has finished shards or a large one, or many photographs were seen.

    The manifest of the last part is the last to be written.
    """
    if any((folder / MANIFEST_NAME).exists() for folder in (partial, partial / EVALUATION_NAME)):
        return True
    shards = [each for folder in _with_parts(partial) for each in finished_shards(folder)]
    if len(shards) > 1 or sum(shard.pairs for shard in shards) >= _WORTH_KEEPING:
        return True
    journal = partial / JOURNAL_NAME
    if not journal.exists():
        return False
    with journal.open("rb") as lines:
        return sum(1 for _ in lines) >= _WORTH_KEEPING


def _remove_what_only_packers_need(partial: Path) -> None:
    """Leaves the folder as the pack will be; it is known by its manifest from here on."""
    for folder in _with_parts(partial):
        remove_what_only_a_resume_needs(folder)
    for name in (SPOOL_NAME, JOURNAL_NAME, _PHOTOGRAPHS_NAME, _REQUEST_NAME):
        (partial / name).unlink(missing_ok=True)


def _put_in_place(partial: Path, place: Path) -> None:
    """Renames ``partial`` to ``place``; what stood there, if anything, is removed after that."""
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    try:
        if place.exists():
            place.rename(old)
        partial.rename(place)
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
    sync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_replaced(place: Path, named: Path) -> None:
    """Ends what a packer had begun that was killed while it replaced a pack.

    Where no new one stands at ``place`` the old one returns, and else goes.

    Raises:
        UserError: another process is packing to it, or the disk is not writable.
    """
    if not _replaced(place):
        return
    with _alone(place, named, _PACKS), disk_errors(named):
        for old in _replaced(place):
            if place.exists() and any(place.iterdir()):
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(place)


def _replaced(place: Path) -> list[Path]:
    """Packs that were taken away from ``place`` for others."""
    pattern = re.compile(re.escape(f".{place.name}.") + r"\d+\.old")
    there = place.parent.iterdir() if place.parent.is_dir() else ()
    return [entry for entry in there if pattern.fullmatch(entry.name)]
