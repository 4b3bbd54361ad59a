"""Rows of batches in a decoding thread: from places in the order to the pixels of a batch.

Two ways: one compiled loop reads, decodes and changes what the pack holds, both images of its pairs
or the first alone; or second images are made in between, of a pack of photographs alone.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from distill.arrays import Numbers
from distill.data import decoder, kernels
from distill.data.augment import changes
from distill.data.batch import PairBatch
from distill.data.order import Keys
from distill.data.reading import GOOD, MISPLACED, UNDECODABLE, Firsts, ReaderOptions
from distill.data.shard_files import ShardFiles

if TYPE_CHECKING:
    from distill.data.online_rows import OnlineRows

_MADE_AT_ONCE = 64
"""Pairs whose second images a thread makes at a time: a few MB of pixels in between."""


class Filled(NamedTuple):
    """A batch, or some of its rows, with the status of each image.

    Attributes:
        first: (B, 3, S, S) uint8.
        second: likewise; (0, 3, S, S) where only first images are read.
        numbers: label and kind, (B, 2) int64.
        status: of the images that are read, (B, 2) or (B, 1) uint8.
    """

    first: torch.Tensor
    second: torch.Tensor
    numbers: torch.Tensor
    status: torch.Tensor

    @classmethod
    def empty(cls, rows: int, side: int, images_per_pair: int = 2) -> Self:
        """Memory of its own for every batch: nothing that was handed out is written again."""
        return cls(
            _fresh((rows, 3, side, side)),
            _fresh((rows if images_per_pair == 2 else 0, 3, side, side)),
            torch.zeros((rows, 2), dtype=torch.int64),
            torch.full((rows, images_per_pair), UNDECODABLE, dtype=torch.uint8),
        )

    def pairs(self, keys: Keys) -> PairBatch:
        """What the consumer gets of a batch that is full and good, with its ``keys``, (B, 2)."""
        second = self.second if self.status.shape[1] == 2 else None
        labels, kinds = self.numbers.t().contiguous()
        return PairBatch(self.first, second, labels, kinds, torch.from_numpy(keys[:, 1].copy()))

    def some(self, rows: slice) -> Self:
        """Some of the rows, in the same memory."""
        return type(self)(*(part[rows] for part in self))


def _fresh(shape: tuple[int, ...]) -> torch.Tensor:
    """Uninitialised bytes, page-locked where there is a GPU to copy them to."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


class DecodedRows:
    """Fills rows of batches; any number of threads, each with a decoder of its own.

    Args:
        files: of the pack, open.
        options: changes, threads, and what makes second images.
        library: any that is linked to libjpeg-turbo.
    """

    def __init__(self, files: ShardFiles, options: ReaderOptions, library: ctypes.CDLL) -> None:
        self._index, self._options = files.index, options
        stored = len(files.index.layout.images)
        assert options.online is not None or options.images_per_pair <= stored
        self._files = decoder.file_table(files.index, files.handles)
        self._form = decoder.form_table(files.index)
        self._tables = kernels.crc_tables()
        self._jpeg = decoder.TurboJpeg(library, options.threads)

    @property
    def handles(self) -> list[Numbers]:
        """The decoders, one a thread."""
        return self._jpeg.handles

    def warm_up(self) -> None:
        """Compiles what will be called, or loads it from the cache; before any thread calls it."""
        none, side = np.zeros((0, 2), np.int64), self._index.side
        if self._options.online is None:
            decoder.warm_up(side)
        else:
            self._make(self._options.online, none, Filled.empty(0, side), self.handles[0])

    def fill(self, keys: Keys, batch: Filled, handle: Numbers) -> None:
        """Some rows of a batch.

        Nothing is made of what is corrupt: the consumer raises before it looks at pixels.

        Args:
            keys: epoch and pair of each row, (B, 2).
            batch: filled.
            handle: a decoder that no other thread uses.
        """
        online = self._options.online
        if online is None:
            self._read(keys, batch, handle)
            return
        for start in range(0, len(keys), _MADE_AT_ONCE):
            some = slice(start, start + _MADE_AT_ONCE)
            self._make(online, keys[some], batch.some(some), handle)

    def _read(self, keys: Keys, batch: Filled, handle: Numbers) -> None:
        """What the pack holds; the compiled loop runs without the GIL."""
        places = self._index.locate(keys[:, 1])
        first, second, numbers, status = (part.numpy() for part in batch)
        decoder.read_pairs(
            self._files,
            self._form,
            places,
            handle,
            self._tables,
            self._changes(keys),
            first,
            second,
            numbers,
            status,
        )
        if self._index.joined is not None:
            numbers[:] = self._index.renumbered(places[:, 0], numbers)
            unknown = (numbers < 0).any(axis=1) & (status[:, 0] == GOOD)
            status[unknown, 0] = MISPLACED

    def _make(self, online: OnlineRows, keys: Keys, batch: Filled, handle: Numbers) -> None:
        """Pairs of photographs and second images made of them."""
        drawn = online.draw(keys)
        images = [self._firsts(online, ids, handle) for ids in (keys[:, 1], drawn.read)]
        batch.status.copy_(torch.from_numpy(np.stack([i.status for i in images], axis=1)))
        if batch.status.any():
            return
        firsts, others = images
        change = np.ascontiguousarray(self._changes(keys).transpose(1, 0, 2))
        kernels.place_all(firsts.pixels, change[0], batch.first.numpy())
        seconds = online.seconds(keys, drawn, firsts, others)
        kernels.place_all(seconds, change[1], batch.second.numpy())
        numbers = np.stack([firsts.numbers[:, 0], drawn.kinds], axis=1)
        batch.numbers.copy_(torch.from_numpy(numbers))

    def _firsts(self, online: OnlineRows, ids: Numbers, handle: Numbers) -> Firsts:
        """First images as they were packed; nothing where an id is below 0."""
        read = Firsts.empty(len(ids), self._index.side)
        places = self._index.locate(ids)
        decoder.read_firsts(self._files, self._form, places, handle, self._tables, *read)
        read.numbers[:] = self._index.renumbered(places[:, 0], read.numbers)
        misplaced = (read.status == GOOD) & online.strangers(ids, read.numbers[:, 0])
        read.status[misplaced] = MISPLACED
        return read

    def _changes(self, keys: Keys) -> Numbers:
        """What happens to each image, (B, 2, 5)."""
        options = self._options
        change = changes(options.seed, keys[:, 0], keys[:, 1], options.amplitudes)
        return np.stack(change, axis=-1)

    def close(self) -> None:
        """Frees the decoders; no thread may be using them."""
        self._jpeg.close()
