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
from distill.data.pack import PackOptions, open_source, pack
from distill.data.pack.workers import Team
from distill.data.second import combine

KINDS = {"blur": 1.0}
SHARD_BYTES = 8 * 10**6
"""Small, so that few and many photographs alike make some shards, and the last one counts alike."""
_AT_ONCE = 25


@functools.cache
def photographs(folder: str) -> list[bytes]:
    """All photographs, in the memory of a worker."""
    return [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]


def pixels(start: int, folder: str) -> int:
    """Decode, warp, second image, encode, of some photographs: what no packer can leave out."""
    points, options = np.array(POINTS, np.float32), PackOptions().second_options()
    size = 0
    for number, data in enumerate(photographs(folder)[start : start + _AT_ONCE], start):
        face = align_face(simplejpeg.decode_jpeg(data), points)
        second, _ = combine(KINDS, face, partial(keyed_rng, 0, number), options=options)
        size += sum(len(encode_jpeg(rgb)) for rgb in (face.rgb, second))
    return size


def pixels_speed(folder: Path, count: int, workers: Team) -> Speed:
    """The pixel work of ``count`` photographs, which the workers have in memory."""
    clock = Clock()
    starts = range(0, count, _AT_ONCE)
    assert all(size for _, size in workers.do(pixels, starts, str(folder), name=str))
    return Speed.of(count, clock.times())


def packing_speed(tables: dict[int, Path], workers: int) -> Speed:
    """What a photograph more costs: the start of the processes is the same for any number.

    Args:
        tables: CSV files with few and with many photographs.
        workers: processes.
    """
    (few, least), (many, most) = ((n, _packing(path, workers)) for n, path in tables.items())
    return Speed.of(many - few, Times(*(b - a for a, b in zip(least, most, strict=True))))


def _packing(table: Path, workers: int) -> Times:
    """What packing takes."""
    with tempfile.TemporaryDirectory(dir=table.parent.parent) as name:
        options = PackOptions(
            kinds=KINDS, landmarks="source", workers=workers, shard_bytes=SHARD_BYTES
        )
        clock = Clock()
        pack(open_source(str(table)), Path(name) / "pack", options)
        return clock.times()
