"""Embeddings as numpy's `.npz`, written as they are made: nothing of them stays in memory.

How many rows there are, and how long the longest path is, stands in front of an array and is known
at its end: rows and lines are kept in files meanwhile. The file is the one that `numpy.savez` makes
of the same arrays: numbers and text, which need no pickle.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from distill.arrays import Floats
from distill.classify.embed import Embedded
from distill.files import whole_files

FIRST = 5
"""Unusable photographs that are remembered."""
_PIECE_BYTES = 1 << 20
_MOSTLY_PADDING = 8
"""Text is compressed where it takes so many times the letters that are in it: numpy gives each line
as many as the longest has, 4 bytes each."""


class Written(NamedTuple):
    """What a file holds.

    Attributes:
        photographs: that were embedded.
        unusable: the others.
        first: a few of them, each with the reason.
    """

    photographs: int
    unusable: int
    first: list[tuple[Path, str]]


def bytes_needed(photographs: int, embedding_dim: int) -> int:
    """What `write_npz` needs on the disk at most, but for paths: all numbers, and then twice."""
    return 2 * 4 * (embedding_dim + 1) * photographs


def write_npz(lots: Iterable[Embedded], out: Path, *, embedding_dim: int) -> Written:
    """The arrays of all ``lots``, each after the other, as a file of numpy's.

    They are photographs (N,), embeddings (N, D), lengths (N,), unusable and reasons (M,).

    Args:
        lots: taken one by one, while the file grows.
        out: the file.
        embedding_dim: D, also where there is no lot.

    Raises:
        UserError: the disk is full or the folder not writable; nothing is left behind.
    """
    first: list[tuple[Path, str]] = []
    with whole_files(out) as folder, ExitStack() as stack:
        files = iter(lambda: stack.enter_context(TemporaryFile(dir=folder)), None)
        photographs, unusable, reasons = (
            _Lines(next(files), name) for name in ("photographs", "unusable", "reasons")
        )
        embeddings = _Rows(next(files), "embeddings", embedding_dim)
        lengths = _Rows(next(files), "lengths")
        for lot in lots:
            photographs.add(map(str, lot.photographs))
            embeddings.add(lot.embeddings)
            lengths.add(lot.lengths)
            unusable.add(str(path) for path, _ in lot.unusable)
            reasons.add(reason for _, reason in lot.unusable)
            first += lot.unusable[: FIRST - len(first)]
        with ZipFile(folder / out.name, "w") as arrays:
            for column in (photographs, embeddings, lengths, unusable, reasons):
                column.write_into(arrays)
    return Written(photographs.count, unusable.count, first)


class _Column(ABC):
    """What becomes an array, in a file of its own until the number of its rows is known.

    Attributes:
        count: rows so far.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name, self.count = file, name, 0

    def write_into(self, arrays: ZipFile) -> None:
        """Writes the array."""
        info = ZipInfo(f"{self._name}.npy")
        info.compress_type = ZIP_DEFLATED if self._mostly_padding() else ZIP_STORED
        dtype, shape = self._type()
        self._file.seek(0)
        with arrays.open(info, "w", force_zip64=True) as member:
            descr = npy.dtype_to_descr(dtype)
            described = {"descr": descr, "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(member, described)
            for piece in self._pieces(dtype):
                member.write(piece)

    @abstractmethod
    def _type(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Type and shape of the array."""

    @abstractmethod
    def _mostly_padding(self) -> bool:
        """Whether it is worth to be compressed."""

    @abstractmethod
    def _pieces(self, dtype: np.dtype[Any]) -> Iterator[bytes]:
        """Its bytes, from the file."""


class _Rows(_Column):
    """Numbers, as they are in the array."""

    def __init__(self, file: IO[bytes], name: str, *row: int) -> None:
        super().__init__(file, name)
        self._row = row

    def add(self, rows: Floats) -> None:
        """Takes some rows, (n, *row)."""
        self._file.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def _type(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        return np.dtype(np.float32), (self.count, *self._row)

    def _mostly_padding(self) -> bool:
        return False

    def _pieces(self, _dtype: np.dtype[Any]) -> Iterator[bytes]:
        while piece := self._file.read(_PIECE_BYTES):
            yield piece


class _Lines(_Column):
    """Text, as JSON a line: a path may hold line ends, and what is no text."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        super().__init__(file, name)
        self._longest = self._letters = 0

    def add(self, lines: Iterable[str]) -> None:
        """Takes some lines."""
        for line in lines:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._longest = max(self._longest, len(line))
            self._letters += len(line)
            self.count += 1

    def _type(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        return np.dtype((np.str_, self._longest or 1)), (self.count,)

    def _mostly_padding(self) -> bool:
        return self._longest * self.count > _MOSTLY_PADDING * self._letters

    def _pieces(self, dtype: np.dtype[Any]) -> Iterator[bytes]:
        some = max(1, _PIECE_BYTES // dtype.itemsize)
        while lines := list(islice(self._file, some)):
            yield np.array([json.loads(line) for line in lines], dtype).tobytes()
