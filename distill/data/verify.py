"""Is a pack still what was packed? Every byte of every shard is read."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from distill.data.beton import checksum_salts, face_bytes
from distill.data.beton_index import BetonIndex, check_index
from distill.data.digests import file_sha256
from distill.data.manifest import Pack, ShardFacts
from distill.errors import UserError

FAULTS_SHOWN = 20


class Fault(NamedTuple):
    """Something that is not as it was packed.

    Attributes:
        shard: file name.
        pair: number of the pair within the pack; None where it is not about one.
        what: in words.
    """

    shard: str
    pair: int | None
    what: str

    def __str__(self) -> str:
        pair = "" if self.pair is None else f" pair {self.pair}:"
        return f"{self.shard}:{pair} {self.what}"


def verify_pack(
    pack: Pack, threads: int = 1, advance: Callable[[int], None] = lambda _: None
) -> list[Fault]:
    """Reads all shards of a pack, several at a time.

    Args:
        pack: opened, so headers and sizes are good already.
        threads: shards that are read at a time.
        advance: told the bytes of each shard when it is done.

    Returns:
        what is wrong, the first `FAULTS_SHOWN` of each shard.
    """

    def one(number: int) -> list[Fault]:
        facts = pack.manifest.shards[number]
        found = list(_faults(pack, number, facts))
        advance(facts.bytes)
        return found

    with ThreadPoolExecutor(threads) as pool:
        of_shards = list(pool.map(one, range(len(pack.manifest.shards))))
    return [*(fault for found in of_shards for fault in found), *_strays(pack)]


def _faults(pack: Pack, number: int, facts: ShardFacts) -> Iterator[Fault]:
    """What is wrong with one shard; where its digest is good, nothing can be."""
    path = pack.path / facts.name
    if file_sha256(path) == facts.sha256:
        return
    shard, first = pack.index.shards[number], int(pack.index.starts[number])
    try:
        check_index(shard, pack.index.classes, pack.index.kinds)
    except UserError as error:
        yield Fault(facts.name, None, error.what.removeprefix(f"{path}: "))
        return
    altered = 0
    for row, which in altered_images(shard):
        altered += 1
        if altered <= FAULTS_SHOWN:
            image = shard.layout.images[which]
            yield Fault(facts.name, first + row, f"{image} image, label or kind altered")
    if altered > FAULTS_SHOWN:
        yield Fault(facts.name, None, f"{altered} altered images in all")
    if not altered:
        yield Fault(facts.name, None, "altered between the images: none of them is affected")


def altered_images(shard: BetonIndex) -> Iterator[tuple[int, int]]:
    """Row and image, 0 or 1, of what does not have its checksum."""
    with shard.path.open("rb") as file:
        for row, (entry, stored) in enumerate(zip(shard.samples, shard.allocations, strict=True)):
            salts = checksum_salts(int(entry["label"]), int(entry["kind"]), face_bytes(entry))
            sums = int(entry["checksum"]) % 2**64
            for which, place in enumerate(stored):
                jpeg = os.pread(file.fileno(), int(place["size"]), int(place["ptr"]))
                if zlib.crc32(jpeg, salts[which]) != sums >> 32 * which & 0xFFFFFFFF:
                    yield row, which


def _strays(pack: Pack) -> Iterator[Fault]:
    """Shards in the folder that the manifest does not know, as a cut-off `forget` leaves them."""
    known = {facts.name for facts in pack.manifest.shards}
    for path in stray_shards(pack.path, known):
        yield Fault(path.name, None, "not in the manifest: no part of this pack")


def stray_shards(folder: Path, known: set[str]) -> list[Path]:
    """Files of shards in ``folder`` with other names than ``known``, finished or not."""
    files = [*folder.glob("pairs*.beton"), *folder.glob(".pairs*.beton.*")]
    return sorted(path for path in files if path.name not in known)
