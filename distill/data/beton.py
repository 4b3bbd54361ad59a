"""FFCV's `.beton` format, version 2: its layout and our own writer.

    header | field descriptors | a metadata row a sample | padding | pages of JPEGs | allocations

The layout follows `ffcv.types`, `ffcv.writer` and `ffcv.fields` of FFCV 1.0.2. Its own writer hangs
on a worker's exception, hence this one. Writing streams: memory stays flat whatever the size.

A sample is a pair: `first` and `second` (square RGB JPEGs, 4:4:4), `label`, `kind`, `checksum`.
Where second images are made while training, `second` is missing and `face0` .. `face5` hold 48
bytes about the face. The checksum holds one CRC-32 an image, which also covers the numbers, so
that a reader can tell every flipped bit and name the sample (FFCV itself shows old pixels for a
corrupt JPEG).
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from distill.files import disk_errors, sync_folder

PAGE_SIZE = 1 << 21
"""Bytes of a page, the smallest FFCV allows; a sample never crosses one."""
VERSION = 2

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True)
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
FACE_WORDS = 6
"""64-bit words that describe the face of a sample without a second image."""
FACE_BYTES = 8 * FACE_WORDS


class Layout(NamedTuple):
    """What a sample consists of.

    Attributes:
        fields: names in their order, with FFCV's numbers of their types (1 int, 2 RGB image).
        row: a row of the metadata.
        images: names of the image fields.
    """

    fields: dict[str, int]
    row: np.dtype[np.void]
    images: tuple[str, ...]

    @property
    def metadata_start(self) -> int:
        """Offset of the first metadata row."""
        return HEADER.itemsize + len(self.fields) * FIELD.itemsize

    def data_start(self, count: int, page_size: int) -> int:
        """Offset of the first page that leaves room for ``count`` rows."""
        end = self.metadata_start + count * self.row.itemsize
        return -(-end // page_size) * page_size


def _layout(images: tuple[str, ...], numbers: tuple[str, ...]) -> Layout:
    fields = dict.fromkeys(images, 2) | dict.fromkeys(numbers, 1)
    parts = [(name, IMAGE if kind == 2 else np.dtype("<i8")) for name, kind in fields.items()]
    return Layout(fields, np.dtype(parts, align=True), images)


_NUMBERS = ("label", "kind", "checksum")
PAIRS = _layout(("first", "second"), _NUMBERS)
SINGLES = _layout(("first",), (*_NUMBERS, *(f"face{i}" for i in range(FACE_WORDS))))
LayoutName = Literal["pairs", "singles"]
LAYOUTS: dict[LayoutName, Layout] = {"pairs": PAIRS, "singles": SINGLES}
"""`pairs`: both images packed; `singles`: first images, whose second ones are made when read."""

_ROWS_BUFFERED = 4096


def checksum_salts(label: int, kind: int, face: bytes = b"") -> tuple[int, int]:
    """Initial CRC-32 states of the first and the second image of a pair with these numbers."""
    first, second = (zlib.crc32(struct.pack("<Bqq", which, label, kind) + face) for which in (0, 1))
    return first, second


def face_bytes(entry: np.void) -> bytes:
    """The bytes about the face in a row of metadata, if its layout has some."""
    names = [name for name in entry.dtype.names or () if name.startswith("face")]
    return b"".join(entry[name].tobytes() for name in names)


def pair_checksum(first: bytes, second: bytes, label: int, kind: int, face: bytes = b"") -> int:
    """CRC-32 of the first image in the low, of the second in the high half, as a signed 64-bit."""
    salts = checksum_salts(label, kind, face)
    low = zlib.crc32(first, salts[0])
    high = zlib.crc32(second, salts[1]) if second else 0
    return int(np.uint64(high << 32 | low).astype(np.int64))


class BetonWriter:
    """Writes a `.beton` of pairs, in order, one at a time.

    Use as a context manager: the file appears under its name, complete and synced, when the block
    ends well; after an exception nothing is left.

    Args:
        path: the file to make.
        capacity: pairs that may be appended at most; room for their rows is left (as a hole).
        side: height and width of every image, in pixels.
        layout: what a sample consists of.
        page_size: bytes of a page, a power of two.
        named: what errors speak of instead of ``path``.

    Attributes:
        appended: pairs so far.

    Raises:
        UserError: the disk is full or not writable.
    """

    def __init__(
        self,
        path: Path,
        capacity: int,
        side: int = 112,
        *,
        layout: Layout = PAIRS,
        page_size: int = PAGE_SIZE,
        named: Path | None = None,
    ) -> None:
        assert capacity > 0 and page_size >= PAGE_SIZE and page_size & (page_size - 1) == 0
        self._named = named or path
        self._path, self._capacity, self._page_size = path, capacity, page_size
        self._side, self._layout = side, layout
        self._data_start = layout.data_start(capacity, page_size)
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._page, self._filled = bytearray(page_size), 0
        self._row = _row_struct(layout)
        self._rows = bytearray(min(capacity, _ROWS_BUFFERED) * self._row.size)
        self.appended = self._rows_written = self._pages = 0

    @property
    def data_bytes(self) -> int:
        """Bytes of images so far, with the filling of pages."""
        return self._pages * self._page_size + self._filled

    def __enter__(self) -> Self:
        with disk_errors(self._named):
            self._file = self._partial.open("wb")
            # Allocations are known only as pairs come, and belong at the end of the file.
            self._allocations = tempfile.TemporaryFile(dir=self._path.parent)
        return self

    def append(self, first: bytes, second: bytes, label: int, kind: int, face: bytes = b"") -> None:
        """Adds one pair of JPEGs (of the file's side, checked by the caller).

        Args:
            first: the sample.
            second: the processed image; empty where the layout has none.
            label: of the person.
            kind: how the second image was made.
            face: 48 bytes about the face; empty where the layout has none.
        """
        assert self.appended < self._capacity, "more pairs than there is room for"
        if len(first) + len(second) > self._page_size:
            raise ValueError(f"pair of {len(first) + len(second)} bytes does not fit a page")
        with disk_errors(self._named):
            if self._filled + len(first) + len(second) > self._page_size:
                self._flush_page()
            numbers: list[int] = []
            for data in (first, second)[: len(self._layout.images)]:
                numbers += (0, self._side, self._side, self._store(data))
            numbers += label, kind, pair_checksum(first, second, label, kind, face)
            numbers += struct.unpack(f"<{len(face) // 8}q", face)
            place = (self.appended - self._rows_written) * self._row.size
            self._row.pack_into(self._rows, place, *numbers)
            self.appended += 1
            if place + self._row.size == len(self._rows):
                self._flush_rows()

    def _store(self, data: bytes) -> int:
        """Puts ``data`` on the open page; returns its offset in the file."""
        pointer = self._data_start + self.data_bytes
        self._page[self._filled : self._filled + len(data)] = data
        self._filled += len(data)
        self._allocations.write(struct.pack("<QQQ", self.appended, pointer, len(data)))
        return pointer

    def _flush_page(self) -> None:
        self._file.seek(self._data_start + self._pages * self._page_size)
        self._page[self._filled :] = bytes(self._page_size - self._filled)
        self._file.write(self._page)
        self._pages, self._filled = self._pages + 1, 0

    def _flush_rows(self) -> None:
        size = self._row.size
        self._file.seek(self._layout.metadata_start + self._rows_written * size)
        self._file.write(self._rows[: (self.appended - self._rows_written) * size])
        self._rows_written = self.appended

    def _finish(self) -> None:
        assert self.appended, "no pairs"
        self._flush_page()
        self._flush_rows()
        table = self._file.seek(0, os.SEEK_END)
        self._allocations.seek(0)
        while chunk := self._allocations.read(1 << 20):
            self._file.write(chunk)
        self._file.seek(0)
        self._file.write(head_bytes(self._layout, self.appended, self._page_size, table))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __exit__(self, kind: object, *_: object) -> None:
        with disk_errors(self._named):
            try:
                if kind is None:
                    self._finish()
                    self._file.close()
                    self._partial.replace(self._path)
                    sync_folder(self._path.parent)
            finally:
                for file in (self._allocations, self._file):
                    # What is still buffered may fail to be written on a full disk. That file is
                    # closed all the same, and the error that matters is on its way already.
                    with suppress(OSError):
                        file.close()
                self._partial.unlink(missing_ok=True)


def _row_struct(layout: Layout) -> struct.Struct:
    """A row of metadata: mode, width, height and offset of each image, then the numbers."""
    parts, end = ["<"], 0
    for name, (kind, offset, *_) in (layout.row.fields or {}).items():
        parts.append(f"{offset - end}x{'BHHQ' if name in layout.images else 'q'}")
        end = offset + kind.itemsize
    return struct.Struct("".join((*parts, f"{layout.row.itemsize - end}x")))


def head_bytes(layout: Layout, count: int, page_size: int, table: int) -> bytes:
    """Header and field descriptors."""
    header = np.array([(VERSION, len(layout.fields), page_size, count, table)], HEADER)
    fields = np.zeros(len(layout.fields), FIELD)
    for row, (name, type_id) in zip(fields, layout.fields.items(), strict=True):
        row["type_id"] = type_id
        row["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    return header.tobytes() + fields.tobytes()
