"""The checks that a `.beton` passes before it is read.

FFCV's reader trusts whatever it finds: a wrong image size is a SIGSEGV, a wrong count an allocation
of hundreds of GB, and half a file opens as a whole one. Opening one here costs the same whatever
its size, for only the header is read; `check_index` compares everything but the images themselves,
a piece at a time; and readers check each entry again when they use it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.beton import (
    ALLOCATION,
    HEADER,
    PAGE_SIZE,
    VERSION,
    Layout,
    head_bytes,
)
from distill.errors import UserError

_ROWS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class BetonIndex:
    """Where things are in a `.beton` whose header is good.

    Attributes:
        path: the file.
        layout: what a sample consists of.
        side: height and width of its images, in pixels.
        count: samples N.
        page_size: bytes of a page.
        table: offset of the allocation table.
    """

    path: Path
    layout: Layout
    side: int
    count: int
    page_size: int
    table: int

    def __len__(self) -> int:
        return self.count

    @cached_property
    def samples(self) -> npt.NDArray[np.void]:
        """The metadata, (N,) of ``layout.row``, mapped."""
        start = self.layout.metadata_start
        return np.memmap(self.path, self.layout.row, "r", start, (self.count,))

    @cached_property
    def allocations(self) -> npt.NDArray[np.void]:
        """The table of what is stored where, (N, images) of `ALLOCATION`, mapped."""
        shape = (self.count, len(self.layout.images))
        return np.memmap(self.path, ALLOCATION, "r", self.table, shape)

    @property
    def pointers(self) -> Numbers:
        """Offsets of all images, (N, images); for small files."""
        columns = [self.samples[name]["data_ptr"] for name in self.layout.images]
        return np.stack(columns, axis=1).astype(np.int64)

    @property
    def sizes(self) -> Numbers:
        """Lengths of all images in bytes, (N, images); for small files."""
        return self.allocations["size"].astype(np.int64)

    @property
    def data_start(self) -> int:
        """Offset below which no image may lie."""
        return self.layout.data_start(self.count, self.page_size)


def open_index(path: Path, *, layout: Layout, side: int) -> BetonIndex:
    """Reads and checks the header of ``path``.

    Args:
        path: a `.beton` written by `BetonWriter`.
        layout: what its samples consist of.
        side: height and width of its images, in pixels.

    Raises:
        UserError: missing, truncated, or of another format.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            head = file.read(layout.metadata_start)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", fix="pack again") from error
    count, page_size, table = _checked_header(path, layout, head, length)
    return BetonIndex(path, layout, side, count, page_size, table)


def check_index(index: BetonIndex, classes: int, kinds: int) -> None:
    """Compares metadata and allocation table, in pieces: memory stays flat.

    Args:
        index: a file whose header is good.
        classes: identities C; labels must lie in [0, C).
        kinds: length of the pack's list of kinds.

    Raises:
        UserError: values out of range, or images outside the file or on top of each other.
    """
    end = index.data_start
    for start in range(0, index.count, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, index.count))
        _check_numbers(index, rows, classes, kinds)
        end = _check_regions(index, rows, end)


def _refuse(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}", fix="the file is damaged or foreign: pack again")


def _checked_header(path: Path, layout: Layout, head: bytes, length: int) -> tuple[int, int, int]:
    """Count, page size and place of the allocation table, all within a file of ``length`` bytes."""
    if len(head) < layout.metadata_start:
        raise _refuse(path, f"truncated ({length} bytes, less than a header)")
    header = np.frombuffer(head, HEADER, 1)[0]
    count, page_size = int(header["num_samples"]), int(header["page_size"])
    table = int(header["alloc_table_ptr"])
    if header["version"] != VERSION:
        raise _refuse(path, f"not a .beton of version {VERSION} (version {header['version']})")
    if page_size < PAGE_SIZE or page_size & (page_size - 1):
        raise _refuse(path, f"page size {page_size} is not a power of two of at least {PAGE_SIZE}")
    if head != head_bytes(layout, count, page_size, table):
        raise _refuse(path, f"other fields than {', '.join(layout.fields)}")
    if count == 0:
        raise _refuse(path, "no pairs in it")
    end = table + len(layout.images) * count * ALLOCATION.itemsize
    if end != length or table < layout.data_start(count, page_size):
        raise _refuse(path, f"truncated or altered ({length} bytes do not fit {count} pairs)")
    return count, page_size, table


def _check_numbers(index: BetonIndex, rows: slice, classes: int, kinds: int) -> None:
    """Image modes and sizes, labels and kinds."""
    samples, side = index.samples[rows], index.side
    for name in index.layout.images:
        image = samples[name]
        bad = (image["mode"] != 0) | (image["width"] != side) | (image["height"] != side)
        _none_bad(index, rows, bad, f"{name} image is not a {side}x{side} JPEG")
    for name, limit in (("label", classes), ("kind", kinds)):
        bad = (samples[name] < 0) | (samples[name] >= limit)
        worst = samples[name][bad.argmax()]
        _none_bad(index, rows, bad, f"{name} {worst} is outside 0 .. {limit - 1}")


def _none_bad(index: BetonIndex, rows: slice, bad: npt.NDArray[np.bool_], what: str) -> None:
    if bad.any():
        first = ", ".join(str(rows.start + i) for i in np.flatnonzero(bad)[:5])
        raise _refuse(index.path, f"{what} (pairs {first}; {int(bad.sum())} in all)")


def _check_regions(index: BetonIndex, rows: slice, end: int) -> int:
    """Images lie in the order of the samples, each inside a page, none overlapping.

    Args:
        index: of the file.
        rows: the samples to check.
        end: where the image before them ends.

    Returns:
        where the last of them ends.
    """
    samples, entries = index.samples[rows], index.allocations[rows]
    stored = np.stack([samples[name]["data_ptr"] for name in index.layout.images], axis=1)
    owners = np.arange(rows.start, rows.stop, dtype=np.uint64)[:, None]
    if (entries["ptr"] != stored).any() or (entries["sample_id"] != owners).any():
        raise _refuse(index.path, "metadata and allocation table disagree")
    starts, sizes = entries["ptr"].ravel(), entries["size"].ravel()
    table = np.uint64(index.table)
    fits = (sizes > 0) & (sizes <= index.page_size) & (starts >= end) & (starts < table)
    if not fits.all():
        raise _refuse(index.path, "an image lies outside the data area")
    ends = starts + sizes
    if (ends > table).any() or (ends[:-1] > starts[1:]).any():
        raise _refuse(index.path, "images overlap, or lie outside the data area")
    if (starts // index.page_size != (ends - np.uint64(1)) // index.page_size).any():
        raise _refuse(index.path, "an image crosses a page")
    return int(ends[-1])
