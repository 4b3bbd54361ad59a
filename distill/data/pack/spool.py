"""Aligned faces on disk between the two rounds of packing: raw rows, written and read by workers.

The face of photograph i of a source is row i, so that no worker waits for another. Where a
photograph has no face, the file has a hole.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from distill.data.faces import FACE_SIZE, AlignedFace
from distill.files import disk_errors

ROW = np.dtype([("rgb", np.uint8, (FACE_SIZE, FACE_SIZE, 3)), ("points", "<f4", (5, 2))])
"""One aligned face, 37,672 bytes."""


def write_faces(path: str, faces: Iterable[tuple[int, AlignedFace]], named: Path) -> None:
    """Stores faces in their rows of a file that is there.

    Raises:
        UserError: the disk is full; it speaks of ``named``, which the user knows.
    """
    row = np.zeros((), ROW)
    with disk_errors(named), Path(path).open("r+b") as file:
        for number, face in faces:
            row["rgb"], row["points"] = face.rgb, face.points
            file.seek(number * ROW.itemsize)
            file.write(row.tobytes())


def rows_in(path: Path) -> int:
    """Rows that a file has room for, holes among them."""
    return path.stat().st_size // ROW.itemsize


def read_face(path: str, row: int) -> AlignedFace:
    """The face in one row.

    Opened anew each time: a mapping that is kept would outlive the file, and block its disk.
    """
    stored = np.fromfile(path, ROW, 1, offset=row * ROW.itemsize)[0]
    return AlignedFace(stored["rgb"], stored["points"])
