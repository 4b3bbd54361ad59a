"""Finding the newest checkpoint that can be trusted."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.checkpoint.folder import corrupt_checkpoints, set_aside, whole_checkpoints
from distill.checkpoint.manifest import MISSING, Damaged, Manifest
from distill.checkpoint.shard import verify_file, verify_label
from distill.collectives import from_first, gather_objects, together
from distill.errors import TryAgain, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from distill.ranks import Ranks


GONE = "removed meanwhile"
"""What is wrong with a checkpoint whose run removes it, for a newer one, while it is read."""
_LOOKS, _SECONDS_BETWEEN_LOOKS = 4, 20.0
"""For one that its own run cannot find: an NFS may be out of date for a minute."""


@dataclass(frozen=True)
class Found:
    """A verified checkpoint.

    Attributes:
        path: its folder.
        manifest: what it is.
        set_aside: newer checkpoints that were damaged, as (where they are now, what is wrong).
    """

    path: Path
    manifest: Manifest
    set_aside: tuple[tuple[str, str], ...] = ()

    @property
    def step(self) -> int:
        """Optimizer steps made."""
        return self.manifest.step

    def damage(self) -> Iterator[str]:
        """What to warn of, one newer checkpoint at a time."""
        for moved, reason in self.set_aside:
            yield f"checkpoint damaged and set aside: {moved} ({reason})"


def latest_verified(
    folder: Path, ranks: Ranks | None = None, *, alone: bool = False
) -> Found | None:
    """The newest checkpoint in ``folder`` whose every byte is as it was written.

    A newer one that is damaged is renamed to ``*.corrupt`` and reported in `Found.set_aside`; one
    that a training run removes meanwhile, for a newer one, is passed over. With ``ranks`` a
    collective: each rank reads its share of the files, all come to one result.

    Args:
        folder: of checkpoints.
        ranks: those that read together.
        alone: whether this is that run, and holds its lock. Then nobody removes one: what is not
            to be found is looked for again, and never passed over; so is a file that is missing,
            before the checkpoint counts as damaged.

    Returns:
        None where no checkpoint was ever finished.

    Raises:
        UserError: there are checkpoints and none is good (never a silent fresh start), or a file
            cannot be read at all.
        TryAgain: one is listed, and not to be found, and this process is ``alone``.
    """
    damaged: list[tuple[str, str]] = []
    seen: list[str] = []
    looks = 0
    while (name := from_first(_newest_name(folder, seen))) is not None:
        path = folder / name
        reason = _reason(path, ranks)
        if not reason:
            return Found(path, Manifest.read(path), tuple(damaged))
        is_there = reason != GONE and from_first(path.exists())
        looks += 1
        looks_again = alone and looks < _LOOKS
        may_appear = looks_again and reason.endswith(MISSING)
        if is_there and not may_appear and (moved := _set_aside(path, ranks)):
            damaged.append((moved, reason))
        elif looks_again:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            continue
        elif alone:
            raise _out_of_date(path)
        seen.append(name)
        looks = 0
    _refuse_what_is_left(folder, damaged, *from_first(_left(folder)))
    return None


def _out_of_date(path: Path) -> TryAgain:
    return TryAgain(
        f"checkpoint {str(path)!r} is listed and its files are not to be found, though no other job"
        " works here: a network file system that is out of date?",
        fix="try again in a minute, or move that folder away to go on from an earlier one",
    )


def _newest_name(folder: Path, seen: Sequence[str]) -> str | None:
    """The newest checkpoint that is listed now, and that is not ``seen`` yet."""
    names = (path.name for path in whole_checkpoints(folder))
    return next((name for name in names if name not in seen), None)


def _left(folder: Path) -> tuple[bool, str | None]:
    """Whether checkpoints were set aside, and the newest that is listed."""
    return bool(corrupt_checkpoints(folder)), _newest_name(folder, [])


def _refuse_what_is_left(
    folder: Path, damaged: Sequence[tuple[str, str]], earlier: bool, listed: str | None
) -> None:
    """No fresh start where none that is there is good.

    Raises:
        UserError: as `latest_verified`.
    """
    if damaged or earlier:
        raise _none_good(folder, damaged)
    if listed:  # an NFS that is out of date
        raise UserError(
            f"checkpoint {str(folder / listed)!r} is listed and {GONE}", fix="try again in a minute"
        )


def newest_told(folder: Path) -> Found | None:
    """The newest checkpoint in ``folder`` whose manifest is as it was written.

    Of the tensors nothing is read, a damaged checkpoint stays where it is, and this process alone
    may call.

    Raises:
        UserError: as `latest_verified`.
    """
    damaged: list[tuple[str, str]] = []
    seen: list[str] = []
    while (name := _newest_name(folder, seen)) is not None:
        path = folder / name
        try:
            return Found(path, Manifest.read(path))
        except Damaged as damage:
            if path.exists():
                damaged.append((str(path), str(damage)))
        except OSError as error:
            _refuse_unless_gone(path, error)
        seen.append(name)
    _refuse_what_is_left(folder, damaged, *_left(folder))
    return None


def _none_good(folder: Path, damaged: Sequence[tuple[str, str]]) -> UserError:
    newest = f": {damaged[0][0]!r}: {damaged[0][1]}" if damaged else ""
    return UserError(
        f"{str(folder)!r} holds checkpoints and none of them is good{newest}",
        fix="bring one back from a copy, or remove the folder to start afresh",
    )


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"checkpoint {str(path)!r} cannot be read: {error}", fix="mend its permissions"
    )


def _refuse_unless_gone(path: Path, error: OSError) -> None:
    """Raises a `UserError` for what cannot be read, but not for what has been removed meanwhile.

    Of files that another node removes NFS says that their handle is stale, for a while beside a
    folder that is still listed. (Errors of safetensors have no number.)
    """
    stale = os.strerror(errno.ESTALE) in str(error)
    if not stale and path.exists():
        raise _unreadable(path, error) from error


def verified(path: Path, ranks: Ranks | None = None, *, compared: bool = False) -> Found:
    """The checkpoint in the folder ``path``, which is left as it is.

    With ``ranks`` a collective; without, this process alone may call. Where digests were
    ``compared`` a moment ago, only the manifest is read.

    Raises:
        UserError: it is damaged, or cannot be read.
    """
    try:
        if compared:
            reason = _first_damage(path, slice(0))
        else:
            reason = _reason(path, ranks) if ranks else reason_against(path)
    except OSError as error:
        reason = str(error)
    if reason:
        raise UserError(f"checkpoint {str(path)!r}: {reason}", fix="use an earlier checkpoint")
    return Found(path, Manifest.read(path))


def reason_against(path: Path) -> str:
    """What is wrong with a checkpoint, as seen by this process alone; empty if nothing is.

    Raises:
        OSError: a file cannot be read at all.
    """
    return _first_damage(path)


def _reason(path: Path, ranks: Ranks | None) -> str:
    mine_of_all = slice(ranks.rank, None, ranks.world_size) if ranks else slice(None)
    mine = GONE
    with together():
        try:
            mine = _first_damage(path, mine_of_all)
        except OSError as error:
            _refuse_unless_gone(path, error)
    reasons = gather_objects(mine)
    return GONE if GONE in reasons else next(filter(None, reasons), "")


def _first_damage(path: Path, shards: slice = slice(None)) -> str:
    """Check the manifest, and all shards or a slice of them."""
    try:
        manifest = Manifest.read(path)
        for name in sorted(manifest.files)[shards]:
            entry = manifest.files[name]
            verify_label(path / name, manifest, entry.rank)
            verify_file(path / name, entry)
    except Damaged as damage:
        return str(damage)
    return ""


def _set_aside(path: Path, ranks: Ranks | None) -> str:
    """Rename on rank 0; the new path, on all ranks, empty where it has been removed meanwhile."""
    moved = ""
    with together():
        if ranks is None or ranks.is_first:
            try:
                moved = str(set_aside(path))
            except FileNotFoundError:  # its files went before it did
                pass
            except OSError as error:
                raise UserError(
                    f"damaged checkpoint {str(path)!r} cannot be renamed: {error}",
                    fix="give yourself write permission there",
                ) from error
    return str(from_first(moved))
