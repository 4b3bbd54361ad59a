"""The checks that a `.beton` passes before FFCV opens it.

FFCV's reader trusts whatever it finds: a wrong image size is a SIGSEGV, a wrong count an allocation
of hundreds of GB, and half a file opens as a whole one. Here everything but the images themselves
is read and compared; nothing is allocated before the sizes fit the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data.beton import (
    ALLOCATION,
    FIELD_TYPES,
    HEADER,
    METADATA_START,
    PAGE_SIZE,
    SAMPLE,
    SIDE,
    VERSION,
    data_start,
    head_bytes,
)
from distill.errors import UserError


@dataclass(frozen=True)
class BetonIndex:
    """What a checked `.beton` holds, without its pixels.

    Attributes:
        path: the file.
        samples: its metadata, (N,) of `SAMPLE`.
        pointers: offsets of the first and second images, (N, 2) int64.
        sizes: their lengths in bytes, (N, 2) int64.
    """

    path: Path
    samples: npt.NDArray[np.void]
    pointers: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.samples)


def read_index(path: Path, *, classes: int, kinds: int) -> BetonIndex:
    """Reads and checks everything in ``path`` but the images themselves.

    Args:
        path: a `.beton` written by `BetonWriter`.
        classes: identities C; labels must lie in [0, C).
        kinds: length of the pack's list of kinds.

    Raises:
        UserError: missing, truncated, of another format, or with values out of range.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            count, page_size, table = _checked_header(path, file.read(METADATA_START), length)
            samples = np.fromfile(file, SAMPLE, count)
            file.seek(table)
            allocations = np.fromfile(file, ALLOCATION, 2 * count)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", fix="pack again") from error
    _check_numbers(path, samples, classes, kinds)
    pointers, sizes = _checked_regions(path, samples, allocations, page_size, table)
    return BetonIndex(path, samples, pointers, sizes)


def _refuse(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}", fix="the file is damaged or foreign: pack again")


def _checked_header(path: Path, head: bytes, length: int) -> tuple[int, int, int]:
    """Count, page size and place of the allocation table, all within a file of ``length`` bytes."""
    if len(head) < METADATA_START:
        raise _refuse(path, f"truncated ({length} bytes, less than a header)")
    header = np.frombuffer(head, HEADER, 1)[0]
    count, page_size = int(header["num_samples"]), int(header["page_size"])
    table = int(header["alloc_table_ptr"])
    if header["version"] != VERSION:
        raise _refuse(path, f"not a .beton of version {VERSION} (version {header['version']})")
    if page_size < PAGE_SIZE or page_size & (page_size - 1):
        raise _refuse(path, f"page size {page_size} is not a power of two of at least {PAGE_SIZE}")
    if head != head_bytes(count, page_size, table):
        raise _refuse(path, f"other fields than {', '.join(FIELD_TYPES)}")
    if count == 0:
        raise _refuse(path, "no pairs in it")
    if table + 2 * count * ALLOCATION.itemsize != length or table < data_start(count, page_size):
        raise _refuse(path, f"truncated or altered ({length} bytes do not fit {count} pairs)")
    return count, page_size, table


def _check_numbers(path: Path, samples: npt.NDArray[np.void], classes: int, kinds: int) -> None:
    """Image modes and sizes, labels and kinds."""
    for name in ("first", "second"):
        image = samples[name]
        bad = (image["mode"] != 0) | (image["width"] != SIDE) | (image["height"] != SIDE)
        _none_bad(path, bad, f"{name} image is not a {SIDE}x{SIDE} JPEG")
    for name, limit in (("label", classes), ("kind", kinds)):
        bad = (samples[name] < 0) | (samples[name] >= limit)
        worst = samples[name][bad.argmax()]
        _none_bad(path, bad, f"{name} {worst} is outside 0 .. {limit - 1}")


def _none_bad(path: Path, bad: npt.NDArray[np.bool_], what: str) -> None:
    if bad.any():
        first = ", ".join(map(str, np.flatnonzero(bad)[:5]))
        raise _refuse(path, f"{what} (pairs {first}; {int(bad.sum())} in all)")


def _checked_regions(
    path: Path,
    samples: npt.NDArray[np.void],
    allocations: npt.NDArray[np.void],
    page_size: int,
    table: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets and sizes of the images, each inside a page of the data area, none overlapping."""
    stored = np.stack([samples["first"]["data_ptr"], samples["second"]["data_ptr"]], axis=1)
    order = np.argsort(allocations["ptr"], kind="stable")
    starts, sizes = allocations["ptr"][order], allocations["size"][order]
    low = np.uint64(data_start(len(samples), page_size))
    fits = (sizes > 0) & (sizes <= page_size) & (starts >= low) & (starts < table)
    if not fits.all():
        raise _refuse(path, "an image lies outside the data area")
    ends = starts + sizes
    if (ends > table).any() or (ends[:-1] > starts[1:]).any():
        raise _refuse(path, "images overlap, or lie outside the data area")
    if (starts // page_size != (ends - np.uint64(1)) // page_size).any():
        raise _refuse(path, "an image crosses a page")
    found = np.minimum(np.searchsorted(starts, stored), len(starts) - 1)
    owner = np.broadcast_to(np.arange(len(samples), dtype=np.uint64)[:, None], stored.shape)
    if (starts[found] != stored).any() or (allocations["sample_id"][order][found] != owner).any():
        raise _refuse(path, "metadata and allocation table disagree")
    return stored.astype(np.int64), sizes[found].astype(np.int64)
