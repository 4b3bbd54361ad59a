"""Removing a person from a pack, and proving it.

Shards that hold pairs of the person are written anew without them, under new names; then the
manifest is replaced, in one instant; then the old files go. Killed before that instant, the pack
is as it was; after it, asking again removes what is left. The person's label stays empty for ever,
so all others keep theirs, and models trained on the pack still fit it.

One process at a time changes a pack: what another has just written looks like a file left over.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.data.beton import face_bytes
from distill.data.beton_index import BetonIndex
from distill.data.contact_sheet import SheetPair, contact_sheet
from distill.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    Pack,
    ShardFacts,
    read_pack,
    shard_name,
)
from distill.data.pack.parts import SHEET_NAME, SHEET_PAIRS
from distill.data.pack.standing import FORGET_LOCK_NAME, REJECTED_NAME, parts_at
from distill.data.pack.tables import filter_table
from distill.data.pack_writer import EncodedPair, ShardWriter
from distill.data.pairs_table import PAIRS_NAME
from distill.data.people import composed
from distill.data.verify import stray_shards
from distill.errors import UserError
from distill.files import disk_errors, write_whole
from distill.locks import alone_at

_NO_LIMIT = 1 << 62
_ROWS_AT_ONCE = 1 << 18

Digests = dict[int, set[bytes]]
"""SHA-256 of images by their length in bytes."""


class Forgotten(NamedTuple):
    """What was done to one pack.

    Attributes:
        pack: as it is now.
        label: of the person.
        pairs: removed.
        shards: written anew.
        scanned: images that are left, none of which is one of those removed.
    """

    pack: Pack
    label: int
    pairs: int
    shards: int
    scanned: int


def forget(identity: str, folder: Path) -> list[Forgotten]:
    """Removes a person from the pack at ``folder``, or from its train and evaluation parts.

    Raises:
        UserError: nobody of that name, the only person of a pack, another process that removes
            somebody from it, or what a pack can raise.
    """
    parts = parts_at(folder)
    with ExitStack() as locks:
        for part in parts:
            if not (part / MANIFEST_NAME).exists():
                read_pack(part)  # tells what is there instead
            lock = part / FORGET_LOCK_NAME
            locks.enter_context(alone_at(lock, part, "is removing somebody from it"))
        return _forget_in([read_pack(part) for part in parts], identity, folder)


def _forget_in(packs: list[Pack], identity: str, folder: Path) -> list[Forgotten]:
    """Removes a person from the packs of a folder, of which nobody else removes one."""
    names = {identity, composed(identity)}  # as `pack` writes it, whatever keyboard or shell wrote
    if not any(identity in pack.manifest.identities for pack in packs):
        identity = composed(identity)
    concerned = [pack for pack in packs if identity in pack.manifest.identities]
    begun = [pack for pack in packs if pack not in concerned]  # by a call that was cut off, if any
    for pack in begun:
        _remove_traces(pack, names.difference(pack.manifest.identities))
    done = [_forget(pack, identity) for pack in concerned]
    if concerned or any(pack.manifest.forgotten for pack in begun):
        filter_table(folder / REJECTED_NAME, ("path", "reason"), partial(_is_about, identity))
    if not concerned:
        raise UserError(
            f"{folder}: nobody is called {identity!r}",
            fix=f"names are in {MANIFEST_NAME}, under identities",
        )
    return done


def _is_about(identity: str, path: str, reason: str) -> bool:
    """Whether a row of rejected.csv names the person, alone or in a path."""
    name = composed(identity)
    return name in composed(path).split("/") or f"{name}/" in composed(reason)


def _forget(pack: Pack, identity: str) -> Forgotten:
    label = pack.manifest.identities.index(identity)
    if pack.manifest.pairs_per_identity[label] == pack.manifest.pairs:
        raise UserError(f"{pack.path}: {identity!r} is the only person in it", fix="delete it")
    removed: Digests = {}
    shards, kinds = _without(pack, label, removed)
    pairs = pack.manifest.pairs - sum(shard.pairs for shard in shards)
    changed = sum(shard not in pack.manifest.shards for shard in shards)
    changed = max(changed, len(pack.manifest.shards) - len(shards))
    manifest = _manifest_without(pack.manifest, label, shards, kinds)
    text = manifest.model_dump_json(indent=1)
    write_whole(pack.path / MANIFEST_NAME, text.encode("utf-8"))
    now = read_pack(pack.path)
    _remove_traces(now, {identity})
    return Forgotten(now, label, pairs, changed, _prove(now, label, removed))


def _remove_traces(pack: Pack, names: set[str]) -> None:
    """Removes what is left beside the shards of a pack of somebody whom its manifest forgot."""
    _remove_strays(pack)
    if pack.manifest.forgotten:
        filter_table(pack.path / PAIRS_NAME, ("identity",), names.__contains__)
        _renew_sheet(pack)


def _without(pack: Pack, label: int, removed: Digests) -> tuple[list[ShardFacts], Counter[int]]:
    """The shards of the pack without one label, and the kinds of the pairs that went.

    The images that went are added to ``removed``.
    """
    kept: list[ShardFacts] = []
    kinds: Counter[int] = Counter()
    numbers = _free_numbers(pack)
    for facts, shard in zip(pack.manifest.shards, pack.index.shards, strict=True):
        of_person = np.asarray(shard.samples["label"] == label)
        if not of_person.any():
            kept.append(facts)
            continue
        kinds.update(shard.samples["kind"][of_person].tolist())
        for row in np.flatnonzero(of_person).tolist():
            for jpeg in filter(None, stored_pair(shard, row)[:2]):
                removed.setdefault(len(jpeg), set()).add(hashlib.sha256(jpeg).digest())
        if not of_person.all():
            rows = np.flatnonzero(~of_person).tolist()
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
    manifest: Manifest, label: int, shards: list[ShardFacts], kinds: Counter[int]
) -> Manifest:
    """The description of the pack without a person, whose label stays, empty."""
    names, people = list(manifest.identities), list(manifest.pairs_per_identity)
    gone, people[label] = people[label], 0
    number = len(manifest.forgotten) + 1
    while (name := f"(forgotten {number})") in names:
        number += 1
    names[label] = name
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
        "forgotten": sorted([*manifest.forgotten, label]),
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


def _prove(pack: Pack, label: int, removed: Digests) -> int:
    """Looks at every pair that is left; how many images that were.

    Images of the length of one that was removed are read and compared: others are none of those.

    Raises:
        UserError: the person is still there.
    """
    scanned, lengths = 0, np.array(sorted(removed), np.uint64)
    for shard in pack.index.shards:
        for start in range(0, len(shard), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            sizes = shard.allocations["size"][rows]
            of_person = shard.samples["label"][rows] == label
            for row in np.flatnonzero(of_person | np.isin(sizes, lengths).any(1)).tolist():
                images = stored_pair(shard, start + row)[:2]
                same = any(_is_among(jpeg, removed) for jpeg in images)
                if of_person[row] or same:
                    raise UserError(
                        f"{shard.path}: row {start + row} still holds an image of the person",
                        fix="the same image is packed under another name: forget that one too",
                    )
            scanned += sizes.size
    return scanned


def _is_among(jpeg: bytes, removed: Digests) -> bool:
    return hashlib.sha256(jpeg).digest() in removed.get(len(jpeg), ())
