"""FFCV's `.beton` format, version 2: its layout and our own writer.

    header | field descriptors | a metadata row a sample | padding | pages of JPEGs | allocations

The layout follows `ffcv.types`, `ffcv.writer` and `ffcv.fields` of FFCV 1.0.2. Its own writer hangs
on a worker's exception, hence this one. Writing streams: memory stays flat whatever the size.

A sample is a pair: `first` and `second` (112x112 RGB JPEG), `label`, `kind` and `checksum`. The
checksum holds one CRC-32 an image, which also covers label and kind, so that a reader can tell
every flipped bit and name the sample (FFCV itself shows old pixels for a corrupt JPEG).
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from distill.files import disk_errors, sync_folder

SIDE = 112
"""Height and width of every image, in pixels."""
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
SAMPLE = np.dtype(
    [("first", IMAGE), ("second", IMAGE), ("label", "<i8"), ("kind", "<i8"), ("checksum", "<i8")],
    align=True,
)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
FIELD_TYPES = {"first": 2, "second": 2, "label": 1, "kind": 1, "checksum": 1}
"""Names of the fields in their order, and FFCV's numbers of their types (1 int, 2 RGB image)."""
METADATA_START = HEADER.itemsize + len(FIELD_TYPES) * FIELD.itemsize

_ROWS_BUFFERED = 4096


def data_start(count: int, page_size: int) -> int:
    """Offset of the first page of a file of ``count`` samples."""
    end = METADATA_START + count * SAMPLE.itemsize
    return -(-end // page_size) * page_size


def checksum_salts(label: int, kind: int) -> tuple[int, int]:
    """Initial CRC-32 states of the first and the second image of a pair with these numbers."""
    return tuple(zlib.crc32(struct.pack("<Bqq", which, label, kind)) for which in (0, 1))  # type: ignore[return-value]


def pair_checksum(first: bytes, second: bytes, label: int, kind: int) -> int:
    """CRC-32 of the first image in the low, of the second in the high half, as a signed 64-bit."""
    salts = checksum_salts(label, kind)
    low, high = zlib.crc32(first, salts[0]), zlib.crc32(second, salts[1])
    return int(np.uint64(high << 32 | low).astype(np.int64))


class BetonWriter:
    """Writes a `.beton` of a known number of pairs, in order, one at a time.

    Use as a context manager: the file appears under its name, complete and synced, when the block
    ends well; after an exception nothing is left.

    Args:
        path: the file to make.
        count: pairs that will be appended.
        page_size: bytes of a page, a power of two.
        named: what errors speak of instead of ``path``.

    Raises:
        UserError: the disk is full or not writable.
    """

    def __init__(
        self, path: Path, count: int, page_size: int = PAGE_SIZE, *, named: Path | None = None
    ) -> None:
        assert count > 0 and page_size >= PAGE_SIZE and page_size & (page_size - 1) == 0
        self._named = named or path
        self._path, self._count, self._page_size = path, count, page_size
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._page = bytearray()
        self._rows = np.zeros(min(count, _ROWS_BUFFERED), SAMPLE)
        self._appended = self._rows_written = self._pages = 0

    def __enter__(self) -> Self:
        with disk_errors(self._named):
            self._file = self._partial.open("wb")
            # Allocations are known only as pairs come, and belong at the end of the file.
            self._allocations = tempfile.TemporaryFile(dir=self._path.parent)
        return self

    def append(self, first: bytes, second: bytes, label: int, kind: int) -> None:
        """Adds one pair of JPEGs (112x112, checked by the caller)."""
        assert self._appended < self._count, "more pairs than were announced"
        if len(first) + len(second) > self._page_size:
            raise ValueError(f"pair of {len(first) + len(second)} bytes does not fit a page")
        with disk_errors(self._named):
            if len(self._page) + len(first) + len(second) > self._page_size:
                self._flush_page()
            row = self._rows[self._appended - self._rows_written]
            for name, data in (("first", first), ("second", second)):
                row[name] = (0, SIDE, SIDE, self._store(data))
            row["label"], row["kind"] = label, kind
            row["checksum"] = pair_checksum(first, second, label, kind)
            self._appended += 1
            if self._appended - self._rows_written == len(self._rows):
                self._flush_rows()

    def _store(self, data: bytes) -> int:
        """Puts ``data`` on the open page; returns its offset in the file."""
        start = data_start(self._count, self._page_size) + self._pages * self._page_size
        pointer = start + len(self._page)
        self._page += data
        self._allocations.write(struct.pack("<QQQ", self._appended, pointer, len(data)))
        return pointer

    def _flush_page(self) -> None:
        start = data_start(self._count, self._page_size) + self._pages * self._page_size
        self._file.seek(start)
        self._file.write(self._page.ljust(self._page_size, b"\0"))
        self._pages += 1
        self._page.clear()

    def _flush_rows(self) -> None:
        self._file.seek(METADATA_START + self._rows_written * SAMPLE.itemsize)
        self._file.write(self._rows[: self._appended - self._rows_written].tobytes())
        self._rows_written = self._appended

    def _finish(self) -> None:
        assert self._appended == self._count, "fewer pairs than were announced"
        self._flush_page()
        self._flush_rows()
        table = self._file.seek(0, os.SEEK_END)
        self._allocations.seek(0)
        while chunk := self._allocations.read(1 << 20):
            self._file.write(chunk)
        self._file.seek(0)
        self._file.write(head_bytes(self._count, self._page_size, table))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with disk_errors(self._named):
            try:
                if error is None:
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


def head_bytes(count: int, page_size: int, table: int) -> bytes:
    """Header and field descriptors."""
    header = np.array([(VERSION, len(FIELD_TYPES), page_size, count, table)], HEADER)
    fields = np.zeros(len(FIELD_TYPES), FIELD)
    for row, (name, type_id) in zip(fields, FIELD_TYPES.items(), strict=True):
        row["type_id"] = type_id
        row["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    return header.tobytes() + fields.tobytes()
