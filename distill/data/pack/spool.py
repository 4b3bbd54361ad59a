"""Aligned faces on disk between the two rounds of packing: raw rows, written and read by workers.

The face of photograph i of a source is row i, so that no worker waits for another. Where a
photograph has no face, the file has a hole. A machine that fails leaves holes too, of what had not
reached the disk while the journal had: each row has a checksum, so that none becomes a black face.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data.faces import FACE_SIZE, AlignedFace
from distill.errors import UserError
from distill.files import check_space, disk_errors

SPOOL_NAME = "faces.spool"
_FACE = [("rgb", np.uint8, (FACE_SIZE, FACE_SIZE, 3)), ("points", "<f4", (5, 2))]
ROW = np.dtype([*_FACE, ("crc", "<u4")])
"""One aligned face with the CRC-32 of its pixels and points, 37,676 bytes."""


def write_faces(path: str, faces: Iterable[tuple[int, AlignedFace]], named: Path) -> None:
    """Stores faces in their rows of a file that is there.

    Raises:
        UserError: the disk is full; it speaks of ``named``, which the user knows.
    """
    row = np.zeros((), ROW)
    with disk_errors(named), Path(path).open("r+b") as file:
        for number, face in faces:
            row["rgb"], row["points"] = face.rgb, face.points
            row["crc"] = _checksum(row)
            file.seek(number * ROW.itemsize)
            file.write(row.tobytes())


def check_room(spool: Path, expected: int | None, named: Path) -> None:
    """Refuse a disk without room for the faces that are still to come.

    Args:
        spool: the file, which is there; what an earlier packer wrote is in it.
        expected: photographs of the source; None where only reading would tell.
        named: what the error speaks of.

    Raises:
        UserError: what is needed and what is free.
    """
    left = max(0, (expected or 0) - rows_in(spool))
    check_space(
        spool.parent,
        left * ROW.itemsize,
        f"{named}: aligned faces of {left} photographs lie beside it while it is packed",
        fix="free some space, or name OUT on a larger disk; --dry-run tells what a pack takes",
    )


def rows_in(path: Path) -> int:
    """Rows that a file has room for, holes among them."""
    return path.stat().st_size // ROW.itemsize


def read_face(path: str, row: int) -> AlignedFace:
    """The face in one row.

    Opened anew each time: a mapping that is kept would outlive the file, and block its disk.

    Raises:
        UserError: it is not what was written.
    """
    stored = np.fromfile(path, ROW, 1, offset=row * ROW.itemsize)
    if not len(stored) or stored[0]["crc"] != _checksum(stored[0]):
        raise UserError(
            f"{path}: the face of photograph {row} is not there any more",
            fix="the machine or its disk failed while packing: remove the folder of this file, and"
            " pack again",
        )
    return AlignedFace(stored[0]["rgb"], stored[0]["points"])


def _checksum(row: npt.NDArray[np.void] | np.void) -> int:
    """CRC-32 of the bytes of a row before its own."""
    return zlib.crc32(row.tobytes()[: -ROW["crc"].itemsize])
