"""`pack` from files to a whole pack, and the pixel work alone."""

from __future__ import annotations

import functools
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg

from data_bench.images import POINTS
from data_bench.measure import Clock, Speed, Times
from distill.data.faces import align_face
from distill.data.images import encode_jpeg
from distill.data.keyed import keyed_rng
from distill.data.pack import DEFAULT_KINDS, PackOptions, open_source, pack
from distill.data.second import combine, draw_kinds
from distill.data.workers import Team

SHARD_BYTES = 8 * 10**6
"""Small, so that few and many photographs alike make some shards, and the last one counts alike."""
KINDS = {"packing": tuple(DEFAULT_KINDS.items()), "packing, blur alone": (("blur", 1.0),)}
"""Chances of kinds: those of `pack`, and the cheapest, which leaves the packer least time."""
_AT_ONCE = 25
Chances = tuple[tuple[str, float], ...]


@functools.cache
def photographs(folder: str) -> list[bytes]:
    """All photographs, in the memory of a worker."""
    return [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]


@functools.cache
def kinds(number: int, chances: Chances) -> tuple[str, ...]:
    """The processings of a photograph, as `pack` draws them; not part of the pixel work."""
    return draw_kinds(dict(chances), keyed_rng(0, number, "kinds"))


def pixels(start: int, folder: str, chances: Chances) -> int:
    """Decode, warp, second image, encode, of some photographs: what no packer can leave out."""
    points, options = np.array(POINTS, np.float32), PackOptions().second_options()
    size, other = 0, None  # that of the photograph before: any will do
    for number, data in enumerate(photographs(folder)[start : start + _AT_ONCE], start):
        face = align_face(simplejpeg.decode_jpeg(data), points)
        wanted, rng_of = kinds(number, chances), partial(keyed_rng, 0, number)
        second, _ = combine(wanted, face, rng_of, other=other, options=options)
        size += sum(len(encode_jpeg(rgb)) for rgb in (face.rgb, second))
        other = face
    return size


def pixels_speed(folder: Path, count: int, chances: Chances, workers: Team) -> Speed:
    """The pixel work of ``count`` photographs, which the workers have in memory."""
    clock = Clock()
    starts = range(0, count, _AT_ONCE)
    assert all(size for _, size in workers.do(pixels, starts, str(folder), chances, name=str))
    return Speed.of(count, clock.times())


def packing_speed(tables: dict[int, Path], chances: Chances, workers: int) -> Speed:
    """What a photograph more costs: the start of the processes is the same for any number.

    Args:
        tables: CSV files with few and with many photographs.
        chances: of the kinds.
        workers: processes.
    """
    (few, least), (many, most) = (
        (count, _packing(path, chances, workers)) for count, path in tables.items()
    )
    return Speed.of(many - few, Times(*(b - a for a, b in zip(least, most, strict=True))))


def _packing(table: Path, chances: Chances, workers: int) -> Times:
    """What packing takes."""
    with tempfile.TemporaryDirectory(dir=table.parent.parent) as name:
        options = PackOptions(
            kinds=dict(chances), landmarks="source", workers=workers, shard_bytes=SHARD_BYTES
        )
        clock = Clock()
        pack(open_source(str(table)), Path(name) / "pack", options)
        return clock.times()
