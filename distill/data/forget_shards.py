"""The shards and the manifest of a pack without some of its people."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.data.beton import face_bytes
from distill.data.beton_index import BetonIndex
from distill.data.manifest import Manifest, Pack, ShardFacts, shard_name
from distill.data.pack_writer import EncodedPair, ShardWriter

_NO_LIMIT = 1 << 62

Digests = dict[int, set[bytes]]
"""SHA-256 of images by their length in bytes."""


class Change(NamedTuple):
    """A pack whose shards without some people are written, and what is to follow.

    Attributes:
        pack: as it is named still.
        labels: of the people.
        manifest: text of the one that names the new shards.
        pairs: that go.
        shards: written anew.
        removed: images that go.
    """

    pack: Pack
    labels: list[int]
    manifest: bytes
    pairs: int
    shards: int
    removed: Digests


def rewritten(pack: Pack, labels: list[int]) -> Change:
    """Writes the shards of a pack anew that hold pairs of some people, under new names.

    Args:
        pack: in a folder without other shards than its own.
        labels: of the people.
    """
    removed: Digests = {}
    shards, kinds = _without(pack, labels, removed)
    pairs = pack.manifest.pairs - sum(shard.pairs for shard in shards)
    changed = sum(shard not in pack.manifest.shards for shard in shards)
    changed = max(changed, len(pack.manifest.shards) - len(shards))
    manifest = _manifest_without(pack.manifest, labels, shards, kinds)
    text = manifest.model_dump_json(indent=1)
    return Change(pack, labels, text.encode("utf-8"), pairs, changed, removed)


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
