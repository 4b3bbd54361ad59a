"""Pairs in plain Python: simplejpeg and numpy, one image after the other.

The slow reference for the FFCV reader, with the same order and the same pixels; taken only where
`data.reader = "python"` says so.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch

from distill.data.augment import Changes, apply, changes
from distill.data.batch import PairBatch
from distill.data.beton import ALLOCATION, checksum_salts, face_bytes
from distill.data.beton_index import BetonIndex
from distill.data.order import Keys
from distill.data.reading import (
    ALTERED,
    MISPLACED,
    UNDECODABLE,
    UNREADABLE,
    Firsts,
    ReaderOptions,
    corrupt,
)
from distill.data.shard_files import ShardFiles

if TYPE_CHECKING:
    from distill.data.online_rows import OnlineRows

_Images = list[npt.NDArray[np.uint8]]


class PythonReader:
    """Reads pairs when they are asked for, without threads.

    Args:
        files: of the pack, checked and open; owned from here on.
        options: changes, and what is read; threads and batches ahead do not apply.
    """

    def __init__(self, files: ShardFiles, options: ReaderOptions) -> None:
        self._files, self._index, self._options = files, files.index, options

    def start(self, batches: Iterator[Keys]) -> _PythonPass:
        """See `reading.Reader`."""
        return _PythonPass(map(self._batch, batches))

    def close(self) -> None:
        """See `reading.Reader`."""
        self._files.close()

    def _batch(self, keys: Keys) -> PairBatch:
        ids = keys[:, 1].copy()
        change = changes(self._options.seed, keys[:, 0], ids, self._options.amplitudes)
        if self._options.online is None:
            pairs = [self._pair(pair, row, change) for row, pair in enumerate(ids.tolist())]
        else:
            pairs = [self._made(keys, row, change) for row in range(len(keys))]
        images, labels, kinds = zip(*pairs, strict=True)
        first, *others = (torch.from_numpy(np.stack(side)) for side in zip(*images, strict=True))
        numbers = torch.tensor(labels), torch.tensor(kinds), torch.from_numpy(ids)
        return PairBatch(first, others[0] if others else None, *numbers)

    def _pair(self, pair: int, row: int, change: Changes) -> tuple[_Images, int, int]:
        """The images that are wanted, changed, (3, S, S); label and kind."""
        stored, label, kind, _ = self._stored(pair)
        images = [apply(image, change, row, which) for which, image in enumerate(stored)]
        return images, label, kind

    def _made(self, keys: Keys, row: int, change: Changes) -> tuple[_Images, int, int]:
        """The same, where the second image is made here."""
        online, key = self._options.online, keys[row : row + 1]
        assert online is not None
        drawn = online.draw(key)
        own, partner = (self._first(online, int(ids[0])) for ids in (key[:, 1], drawn.read))
        second = online.seconds(key, drawn, own, partner)[0]
        images = [apply(own.pixels[0], change, row, 0), apply(second, change, row, 1)]
        return images, int(own.numbers[0, 0]), int(drawn.kinds[0])

    def _first(self, online: OnlineRows, pair: int) -> Firsts:
        """One first image as it was packed; a black one where ``pair`` is below 0."""
        read = Firsts.empty(1, self._index.side)
        if pair >= 0:
            (read.pixels[0],), label, kind, face = self._stored(pair)
            read.numbers[0], read.faces[0] = (label, kind), np.frombuffer(face, np.uint8)
            if online.strangers(np.array([pair]), read.numbers[:, 0])[0]:
                raise corrupt(self._index, pair, 0, MISPLACED)
        return read

    def _stored(self, pair: int) -> tuple[_Images, int, int, bytes]:
        """The wanted images of a pair, (S, S, 3) each; label, kind, the bytes about the face.

        Raises:
            UserError: the pair is not what was packed.
        """
        (number, place) = self._index.locate(np.array([pair]))[0].tolist()
        shard, file = self._index.shards[number], self._files.handles[number]
        entry, regions = _entry(file, shard, place)
        label, kind, face = int(entry["label"]), int(entry["kind"]), face_bytes(entry)
        if regions is None or not (label < self._index.classes and kind < self._index.kinds):
            raise corrupt(self._index, pair, 0, MISPLACED)
        salts, sums = checksum_salts(label, kind, face), int(entry["checksum"]) % 2**64
        images = []
        for which, (start, size) in enumerate(regions[: self._options.images_per_pair]):
            jpeg = os.pread(file, size, start)
            if zlib.crc32(jpeg, salts[which]) != sums >> 32 * which & 0xFFFFFFFF:
                status = ALTERED if len(jpeg) == size else UNREADABLE
                raise corrupt(self._index, pair, which, status)
            images.append(self._decoded(jpeg, pair, which))
        numbers = self._index.renumbered(np.array([number]), np.array([[label, kind]]))[0]
        if (numbers < 0).any():
            raise corrupt(self._index, pair, 0, MISPLACED)
        return images, int(numbers[0]), int(numbers[1]), face

    def _decoded(self, jpeg: bytes, pair: int, which: int) -> npt.NDArray[np.uint8]:
        """One image, (S, S, 3)."""
        side = self._index.side
        try:
            height, width, colours, sampling = simplejpeg.decode_jpeg_header(jpeg)
            if (height, width, colours, sampling) != (side, side, "YCbCr", "444"):
                raise ValueError("another form")
            rgb: npt.NDArray[np.uint8]
            rgb = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=True)
        except ValueError as error:
            raise corrupt(self._index, pair, which, UNDECODABLE) from error
        return rgb


def _entry(file: int, shard: BetonIndex, row: int) -> tuple[np.void, list[tuple[int, int]] | None]:
    """The metadata of a sample, and where its images are: None if the two places disagree."""
    layout = shard.layout
    size = len(layout.images) * ALLOCATION.itemsize
    data = os.pread(file, layout.row.itemsize, layout.metadata_start + row * layout.row.itemsize)
    table = os.pread(file, size, shard.table + row * size)
    if (len(data), len(table)) != (layout.row.itemsize, size):
        return np.zeros(1, layout.row)[0], None
    entry, stored = np.frombuffer(data, layout.row)[0], np.frombuffer(table, ALLOCATION)
    regions = list(zip(stored["ptr"].tolist(), stored["size"].tolist(), strict=True))
    agree = [int(entry[name]["data_ptr"]) for name in layout.images] == stored["ptr"].tolist()
    agree = agree and set(stored["sample_id"].tolist()) == {row}
    inside = all(start >= shard.data_start and start + n <= shard.table for start, n in regions)
    return entry, regions if agree and inside else None


class _PythonPass:
    """One request, read as it is consumed."""

    def __init__(self, batches: Iterator[PairBatch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        return next(self._batches)

    def close(self) -> None:
        self._batches = iter(())
