"""Removing people from a pack, and proving it.

Shards that hold pairs of a person are written anew without them, under new names; then the
manifest is replaced, in one instant (those of two parts one right after the other); then the old
files go. Killed before that instant, the pack is as it was; after it, asking again removes what is
left. A person's label stays empty for ever, so all others keep theirs, and models trained on the
pack still fit it.

One process at a time changes a pack: what another has just written looks like a file left over, and
a packer replaces the whole folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.data.contact_sheet import SheetPair, contact_sheet
from distill.data.forget_names import asked_of, is_about, labels_in, nobody
from distill.data.forget_shards import Change, Digests, rewritten, stored_pair
from distill.data.manifest import (
    MANIFEST_NAME,
    Pack,
    read_pack,
)
from distill.data.pack.parts import SHEET_NAME, SHEET_PAIRS
from distill.data.pack.scratch import without_packers
from distill.data.pack.standing import FORGET_LOCK_NAME, REJECTED_NAME, parts_at
from distill.data.pack.tables import filter_table
from distill.data.pairs_table import PAIRS_NAME
from distill.data.verify import stray_shards
from distill.errors import UserError
from distill.files import disk_errors, write_whole
from distill.locks import alone_at

_ROWS_AT_ONCE = 1 << 18
_REMOVES = "is removing somebody from it"


class Forgotten(NamedTuple):
    """What was done to one pack.

    Attributes:
        pack: as it is now.
        labels: of the people, by the order in which they were named.
        pairs: removed.
        shards: written anew.
        scanned: images that are left, none of which is one of those removed.
    """

    pack: Pack
    labels: list[int]
    pairs: int
    shards: int
    scanned: int


def forget(identities: Collection[str], folder: Path) -> list[Forgotten]:
    """Removes people from the pack at ``folder``, or from its train and evaluation parts.

    Args:
        identities: names; each person is in one of the parts at least.
        folder: of a pack, or of its parts.

    Raises:
        UserError: nobody of one of the names, or nobody else in a pack: no one is removed then; or
            another process that packs to it or removes somebody from it, or what a pack can raise.
    """
    with ExitStack() as locks:
        locks.enter_context(without_packers(folder, _REMOVES))
        parts = parts_at(folder)
        for part in parts:
            if not (part / MANIFEST_NAME).exists():
                read_pack(part)  # tells what is there instead
            lock = part / FORGET_LOCK_NAME
            locks.enter_context(alone_at(lock, part, _REMOVES))
        return _forget_in([read_pack(part) for part in parts], identities, folder)


def _forget_in(packs: list[Pack], identities: Collection[str], folder: Path) -> list[Forgotten]:
    """Removes people from the packs of a folder, of which nobody else removes one."""
    asked = asked_of(packs, identities)
    if asked.unknown:  # they may be gone, and have left traces
        asked = asked._replace(known=[])
    labels = [labels_in(pack, asked.known) for pack in packs]
    names = asked.spellings
    changes = [_begun(pack, here) for pack, here in zip(packs, labels, strict=True)]
    for change in filter(None, changes):  # of all parts at once: asked again, all know the same
        write_whole(change.pack.path / MANIFEST_NAME, change.manifest)
    now = [read_pack(p.path) if change else p for p, change in zip(packs, changes, strict=True)]
    for pack in now:  # also where a call that was cut off may have been at work
        _remove_traces(pack, names)
    if any(pack.manifest.forgotten for pack in now):
        filter_table(folder / REJECTED_NAME, ("path", "reason"), partial(is_about, names))
    if asked.unknown:
        raise nobody(folder, asked.unknown)
    return [_proved(pack, change) for pack, change in zip(now, changes, strict=True) if change]


def _begun(pack: Pack, labels: list[int]) -> Change | None:
    """The change that removes people from a pack, up to its manifest; None where there are none."""
    if not labels:
        return None
    _remove_strays(pack)  # their names are taken anew
    return rewritten(pack, labels)


def _proved(now: Pack, change: Change) -> Forgotten:
    """What came of a change, once its manifest stands."""
    scanned = _prove(now, change.labels, change.removed)
    return Forgotten(now, change.labels, change.pairs, change.shards, scanned)


def _remove_traces(pack: Pack, names: set[str]) -> None:
    """Removes what is left beside the shards of a pack of those whom its manifest forgot."""
    _remove_strays(pack)
    if pack.manifest.forgotten:
        gone = names.difference(pack.manifest.identities)
        filter_table(pack.path / PAIRS_NAME, ("identity",), gone.__contains__)
        _renew_sheet(pack)


def _remove_strays(pack: Pack) -> None:
    """Removes shards that the manifest does not name, of this or an earlier, cut-off call."""
    with disk_errors(pack.path):
        for path in stray_shards(pack.path, {facts.name for facts in pack.manifest.shards}):
            path.unlink()


def _renew_sheet(pack: Pack) -> None:
    """Draws the contact sheet of the pairs that are left."""
    sheet = pack.path / SHEET_NAME
    if not sheet.exists():
        return
    with disk_errors(sheet):
        sheet.unlink()
        contact_sheet(_sheet_pairs(pack), sheet)


def _sheet_pairs(pack: Pack) -> Iterator[SheetPair]:
    """A few pairs of each single kind, each of another person."""
    shown: dict[int, set[int]] = {}
    single = sum("+" not in name for name in pack.manifest.kinds)
    for shard in pack.index.shards:
        if not shard.layout.images[1:]:
            return
        for row, (label, kind) in enumerate(
            zip(shard.samples["label"].tolist(), shard.samples["kind"].tolist(), strict=True)
        ):
            people = shown.setdefault(kind, set())
            name = pack.manifest.kinds[kind]
            if "+" in name or label in people or len(people) == SHEET_PAIRS:
                continue
            people.add(label)
            pair = stored_pair(shard, row)
            yield SheetPair(name, pair.first, pair.second)
            if sum(map(len, shown.values())) == single * SHEET_PAIRS:
                return


def _prove(pack: Pack, labels: list[int], removed: Digests) -> int:
    """Looks at every pair that is left; how many images that were.

    Images of the length of one that was removed are read and compared: others are none of those.

    Raises:
        UserError: one of the people is still there.
    """
    scanned, lengths = 0, np.array(sorted(removed), np.uint64)
    for shard in pack.index.shards:
        for start in range(0, len(shard), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            sizes = shard.allocations["size"][rows]
            of_them = np.isin(shard.samples["label"][rows], labels)
            for row in np.flatnonzero(of_them | np.isin(sizes, lengths).any(1)).tolist():
                images = stored_pair(shard, start + row)[:2]
                same = any(_is_among(jpeg, removed) for jpeg in images)
                if of_them[row] or same:
                    raise UserError(
                        f"{shard.path}: row {start + row} still holds an image of who was removed",
                        fix="the same image is packed under another name: forget that one too",
                    )
            scanned += sizes.size
    return scanned


def _is_among(jpeg: bytes, removed: Digests) -> bool:
    return hashlib.sha256(jpeg).digest() in removed.get(len(jpeg), ())
