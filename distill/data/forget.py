"""Removing people from a pack, and proving it.

Shards that hold pairs of a person are written anew without them, under new names; then the
manifest is replaced, in one instant; then the old files go. Killed before that instant, the pack
is as it was; after it, asking again removes what is left. A person's label stays empty for ever,
so all others keep theirs, and models trained on the pack still fit it.

One process at a time changes a pack: what another has just written looks like a file left over, and
a packer replaces the whole folder.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.data.beton import face_bytes
from distill.data.beton_index import BetonIndex
from distill.data.contact_sheet import SheetPair, contact_sheet
from distill.data.forget_names import asked_of, is_about, labels_in, nobody
from distill.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    Pack,
    ShardFacts,
    read_pack,
    shard_name,
)
from distill.data.pack.parts import SHEET_NAME, SHEET_PAIRS
from distill.data.pack.scratch import without_packers
from distill.data.pack.standing import FORGET_LOCK_NAME, REJECTED_NAME, parts_at
from distill.data.pack.tables import filter_table
from distill.data.pack_writer import EncodedPair, ShardWriter
from distill.data.pairs_table import PAIRS_NAME
from distill.data.verify import stray_shards
from distill.errors import UserError
from distill.files import disk_errors, write_whole
from distill.locks import alone_at

_NO_LIMIT = 1 << 62
_ROWS_AT_ONCE = 1 << 18
_REMOVES = "is removing somebody from it"

Digests = dict[int, set[bytes]]
"""SHA-256 of images by their length in bytes."""


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
    done = []
    for pack, here in zip(packs, labels, strict=True):
        if here:
            done.append(_forget(pack, here, names))
        else:  # a call that was cut off may have been at work
            _remove_traces(pack, names)
    if done or any(pack.manifest.forgotten for pack in packs):
        filter_table(folder / REJECTED_NAME, ("path", "reason"), partial(is_about, names))
    if asked.unknown:
        raise nobody(folder, asked.unknown)
    return done


def _forget(pack: Pack, labels: list[int], names: set[str]) -> Forgotten:
    removed: Digests = {}
    shards, kinds = _without(pack, labels, removed)
    pairs = pack.manifest.pairs - sum(shard.pairs for shard in shards)
    changed = sum(shard not in pack.manifest.shards for shard in shards)
    changed = max(changed, len(pack.manifest.shards) - len(shards))
    manifest = _manifest_without(pack.manifest, labels, shards, kinds)
    text = manifest.model_dump_json(indent=1)
    write_whole(pack.path / MANIFEST_NAME, text.encode("utf-8"))
    now = read_pack(pack.path)
    _remove_traces(now, names)
    return Forgotten(now, labels, pairs, changed, _prove(now, labels, removed))


def _remove_traces(pack: Pack, names: set[str]) -> None:
    """Removes what is left beside the shards of a pack of those whom its manifest forgot."""
    _remove_strays(pack)
    if pack.manifest.forgotten:
        gone = names.difference(pack.manifest.identities)
        filter_table(pack.path / PAIRS_NAME, ("identity",), gone.__contains__)
        _renew_sheet(pack)


def _without(
    pack: Pack, labels: list[int], removed: Digests
) -> tuple[list[ShardFacts], Counter[int]]:
    """The shards of the pack without some labels, and the kinds of the pairs that went.

    The images that went are added to ``removed``.
    """
    kept: list[ShardFacts] = []
    kinds: Counter[int] = Counter()
    numbers = _free_numbers(pack)
    for facts, shard in zip(pack.manifest.shards, pack.index.shards, strict=True):
        of_them = np.isin(shard.samples["label"], labels)
        if not of_them.any():
            kept.append(facts)
            continue
        kinds.update(shard.samples["kind"][of_them].tolist())
        for row in np.flatnonzero(of_them).tolist():
            for jpeg in filter(None, stored_pair(shard, row)[:2]):
                removed.setdefault(len(jpeg), set()).add(hashlib.sha256(jpeg).digest())
        if not of_them.all():
            rows = np.flatnonzero(~of_them).tolist()
            kept.append(_rewritten(pack.path, shard, rows, next(numbers)))
    return kept, kinds


def _free_numbers(pack: Pack) -> Iterator[int]:
    """Numbers of shards that the pack does not have."""
    _remove_strays(pack)
    taken = {facts.name for facts in pack.manifest.shards}
    number = 0
    while True:
        if shard_name(number) not in taken:
            yield number
        number += 1


def _rewritten(folder: Path, shard: BetonIndex, rows: list[int], number: int) -> ShardFacts:
    """Some rows of a shard as a shard of its own."""
    facts: list[ShardFacts] = []
    with ShardWriter(
        folder,
        len(rows),
        image_side=shard.side,
        layout=shard.layout,
        shard_bytes=_NO_LIMIT,
        at_end=facts.append,
        first_number=number,
    ) as writer:
        for row in rows:
            writer.append(stored_pair(shard, row))
    return facts[0]


def stored_pair(shard: BetonIndex, row: int) -> EncodedPair:
    """A pair as it was packed."""
    entry, places = shard.samples[row], shard.allocations[row]
    with shard.path.open("rb") as file:
        images = [os.pread(file.fileno(), int(p["size"]), int(p["ptr"])) for p in places]
    first, second = (*images, b"")[:2]
    return EncodedPair(first, second, int(entry["label"]), int(entry["kind"]), face_bytes(entry))


def _manifest_without(
    manifest: Manifest, labels: list[int], shards: list[ShardFacts], kinds: Counter[int]
) -> Manifest:
    """The description of the pack without some people, whose labels stay, empty."""
    names, people = list(manifest.identities), list(manifest.pairs_per_identity)
    gone = sum(people[label] for label in labels)
    number = len(manifest.forgotten)
    for label in labels:
        number += 1
        while (name := f"(forgotten {number})") in names:
            number += 1
        names[label], people[label] = name, 0
    per_photograph = manifest.pairs // manifest.photographs
    content = manifest.model_dump() | {
        "identities": names,
        "pairs_per_identity": people,
        "pairs": manifest.pairs - gone,
        "photographs": manifest.photographs - gone // per_photograph,
        "pairs_per_kind": {
            kind: pairs - kinds[manifest.kinds.index(kind)]
            for kind, pairs in manifest.pairs_per_kind.items()
        },
        "forgotten": sorted([*manifest.forgotten, *labels]),
        "shards": [shard.model_dump() for shard in shards],
    }
    return Manifest.model_validate(content)


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
