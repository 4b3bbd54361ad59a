"""Aligned faces on disk between the two rounds of packing: raw rows, read by the workers."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from distill.data.faces import FACE_SIZE, AlignedFace
from distill.files import disk_errors

ROW = np.dtype([("rgb", np.uint8, (FACE_SIZE, FACE_SIZE, 3)), ("points", "<f4", (5, 2))])
"""One aligned face, 37,672 bytes."""


class SpoolWriter:
    """Appends aligned faces to a file, from its beginning.

    Raises:
        UserError: the disk is full.
    """

    def __init__(self, path: Path, named: Path) -> None:
        """Opens ``path``; errors speak of ``named``, which the user knows."""
        self.named, self.path = named, path
        with disk_errors(named):
            path.touch()
            self._file = path.open(
                "r+b"
            )  # rows of a killed packer are read before they are rewritten
        self.rows = 0

    def append(self, face: AlignedFace) -> int:
        """Stores a face and gives the number of its row."""
        row = np.zeros((), ROW)
        row["rgb"], row["points"] = face.rgb, face.points
        with disk_errors(self.named):
            self._file.write(row.tobytes())
        self.rows += 1
        return self.rows - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with disk_errors(self.named):
            try:
                if error is None:
                    self._file.truncate()
            finally:
                self._file.close()


def rows_in(path: Path) -> int:
    """Faces that a file holds."""
    return path.stat().st_size // ROW.itemsize


def read_face(path: str, row: int) -> AlignedFace:
    """The face in one row.

    Opened anew each time: a mapping that is kept would outlive the file, and block its disk.
    """
    stored = np.fromfile(path, ROW, 1, offset=row * ROW.itemsize)[0]
    return AlignedFace(stored["rgb"], stored["points"])
