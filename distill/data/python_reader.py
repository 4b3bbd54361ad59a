"""Pairs in plain Python: simplejpeg and numpy, one image after the other.

The slow reference for the FFCV reader, with the same order and the same pixels; taken only where
`data.reader = "python"` says so.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch

from distill.data.augment import Changes, apply, changes
from distill.data.batch import PairBatch
from distill.data.beton import SIDE, checksum_salts
from distill.data.beton_index import BetonIndex
from distill.data.order import Indices
from distill.data.reading import ReaderOptions, corrupt, packed_crcs


class PythonReader:
    """Reads pairs of a checked `.beton` when they are asked for, without threads.

    Args:
        index: of the file.
        options: batch size and changes; threads and batches ahead do not apply.
    """

    def __init__(self, index: BetonIndex, options: ReaderOptions) -> None:
        self._index, self._options = index, options
        self._file = np.memmap(index.path, np.uint8, mode="r")

    def start(self, epoch: int, ids: Indices) -> _PythonPass:
        """See `reading.Reader`."""
        return _PythonPass(self._batches(epoch, ids))

    def close(self) -> None:
        """See `reading.Reader`; the mapping goes with the object."""

    def _batches(self, epoch: int, ids: Indices) -> Iterator[PairBatch]:
        size = self._options.batch_pairs
        for start in range(0, len(ids), size):
            yield self._batch(epoch, ids[start : start + size])

    def _batch(self, epoch: int, ids: Indices) -> PairBatch:
        change = changes(self._options.seed, epoch, ids, self._options.amplitudes)
        first, second = (self._side(ids, which, change) for which in (0, 1))
        rows = self._index.samples[ids]
        labels, kinds = (torch.from_numpy(np.ascontiguousarray(rows[n])) for n in ("label", "kind"))
        return PairBatch(first, second, labels, kinds, torch.from_numpy(ids.copy()))

    def _side(self, ids: Indices, which: int, change: Changes) -> torch.Tensor:
        expected = packed_crcs(self._index, ids, which)
        images = [
            apply(self._decoded(int(sample), which, int(expected[row])), change, row, which)
            for row, sample in enumerate(ids)
        ]
        return torch.from_numpy(np.stack(images))

    def _decoded(self, sample: int, which: int, expected: int) -> npt.NDArray[np.uint8]:
        """One image, (S, S, 3).

        Raises:
            UserError: other bytes than were packed, or no JPEG.
        """
        row = self._index.samples[sample]
        start, size = (
            int(self._index.pointers[sample, which]),
            int(self._index.sizes[sample, which]),
        )
        jpeg = self._file[start : start + size].tobytes()
        salt = checksum_salts(int(row["label"]), int(row["kind"]))[which]
        if zlib.crc32(jpeg, salt) != expected:
            raise corrupt(self._index.path, sample, which, 1)
        try:
            rgb: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
                jpeg, colorspace="RGB", fastdct=True
            )
        except ValueError as error:
            raise corrupt(self._index.path, sample, which, 2) from error
        if rgb.shape != (SIDE, SIDE, 3):
            raise corrupt(self._index.path, sample, which, 2)
        return rgb


class _PythonPass:
    """One pass, read as it is consumed."""

    drained = False

    def __init__(self, batches: Iterator[PairBatch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        return next(self._batches)

    def close(self) -> None:
        self._batches = iter(())
