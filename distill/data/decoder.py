"""Compiled reading: entries, bytes and JPEGs of many pairs, every one of them checked.

Files are read with `pread`, so nothing is mapped: memory stays as it is whatever the size of the
pack, and a file that gets shorter while it is read is an error with a name, not a signal. JPEGs are
decoded by the libjpeg-turbo that FFCV's library is linked to, as far as Y, Cb and Cr; `kernels`
does the rest in one go (its RGB is that of the library, bit by bit).

C functions are called by symbol names, not through ctypes (whose addresses numba refuses to
cache), so only the very first process on a machine compiles. All loops release the GIL.
"""

# over 300 lines: one compiled way from a file to pixels; its steps share every table and status.

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from distill.arrays import Numbers
from distill.data.beton import ALLOCATION, FACE_BYTES, IMAGE, SINGLES, Layout
from distill.data.compiled import compiled
from distill.data.kernels import crc32, crc_tables, place_planes
from distill.data.pack_index import PackIndex
from distill.data.reading import ALTERED, GOOD, MISPLACED, UNDECODABLE, UNREADABLE

_pointer, _i32 = types.voidptr, types.int32
_PREFIX = "pairdistill_"
_header = types.ExternalFunction(
    _PREFIX + "tjDecompressHeader3", _i32(_pointer, _pointer, types.uint64, *[_pointer] * 4)
)
_to_planes = types.ExternalFunction(
    _PREFIX + "tjDecompressToYUVPlanes",
    _i32(_pointer, _pointer, types.uint64, _pointer, _i32, _pointer, _i32, _i32),
)
_to_pixels = types.ExternalFunction(
    _PREFIX + "tjDecompress2",
    _i32(_pointer, _pointer, types.uint64, _pointer, *[_i32] * 5),
)
_new = types.ExternalFunction(_PREFIX + "tjInitDecompress", types.int64())
_destroy = types.ExternalFunction(_PREFIX + "tjDestroy", _i32(_pointer))
_pread = types.ExternalFunction("pread", types.int64(_i32, _pointer, types.uint64, types.int64))

_FUNCTIONS = (
    "tjDecompressHeader3",
    "tjDecompressToYUVPlanes",
    "tjDecompress2",
    "tjInitDecompress",
    "tjDestroy",
)


def _offset(row: np.dtype[np.void], field: str) -> int:
    """Where a field stands in a row, in bytes."""
    assert row.fields is not None
    return int(row.fields[field][1])


_FAST_DCT, _NO_SUBSAMPLING, _YCBCR, _RGB = 2048, 0, 1, 0  # of turbojpeg.h
_IMAGE_BYTES, _ENTRY_BYTES = IMAGE.itemsize, ALLOCATION.itemsize
_PLACE, _OWNER = _offset(IMAGE, "data_ptr"), _offset(ALLOCATION, "sample_id")
_START, _LENGTH = _offset(ALLOCATION, "ptr"), _offset(ALLOCATION, "size")
"""Offsets of what entries and the table say of an image, in bytes."""


class TurboJpeg:
    """The JPEG library that a shared library brings along, and its decoders for a few threads.

    Args:
        library: any library that is linked to libjpeg-turbo.
        decoders: how many threads will decode at a time.
    """

    def __init__(self, library: ctypes.CDLL, decoders: int) -> None:
        for name in _FUNCTIONS:
            address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
            llvm.add_symbol(_PREFIX + name, address)
        library.tjInitDecompress.restype = ctypes.c_void_p
        library.tjDestroy.argtypes = [ctypes.c_void_p]
        self._destroy = library.tjDestroy
        self.handles = [np.array([library.tjInitDecompress()], np.int64) for _ in range(decoders)]

    def close(self) -> None:
        """Frees the decoders; no thread may be using them."""
        while self.handles:
            self._destroy(int(self.handles.pop()[0]))


@intrinsic  # type: ignore[untyped-decorator]
def _at(_context: Any, _address: Any) -> Any:
    """An address as a pointer."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def file_table(index: PackIndex, handles: list[int]) -> Numbers:
    """What the loops know of each shard, (shards, 5): file, samples, first byte of data, place of
    the table, largest image.
    """
    rows = [
        (handle, len(shard), shard.data_start, shard.table, shard.page_size)
        for handle, shard in zip(handles, index.shards, strict=True)
    ]
    return np.array(rows, np.int64)


def form_table(index: PackIndex) -> Numbers:
    """What the loops know of all shards, (8,)."""
    layout = index.layout
    return np.array(
        [
            layout.metadata_start,
            layout.row.itemsize,
            len(layout.images),
            _offset(layout.row, "label"),
            _face_bytes(layout),
            index.classes,
            index.kinds,
            index.side,
        ],
        np.int64,
    )


def _face_bytes(layout: Layout) -> int:
    """Bytes about the face; they follow the three numbers of a row."""
    return FACE_BYTES if layout is SINGLES else 0


@compiled
def _filled(file: Any, place: Any, out: Any) -> Any:
    """Reads ``len(out)`` bytes; whether all of them came."""
    done = 0
    while done < len(out):
        rest = out[done:]
        got = _pread(_i4(file), rest.ctypes, len(rest), place + done)
        if got <= 0:
            return False
        done += got
    return True


_i4 = np.int32


@compiled
def _number(data: Any, start: Any) -> Any:
    """Eight bytes, least significant first, at any place."""
    value = np.uint64(0)
    for i in range(8):
        value |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return np.int64(value)


@compiled
def read_entry(file: Any, form: Any, row: Any, entry: Any, regions: Any, numbers: Any) -> Any:
    """The entry of one sample, checked against the table.

    Args:
        file: a row of `file_table`.
        form: of `form_table`.
        row: of the sample in its shard.
        entry: scratch, a row of metadata and behind it the sample's part of the table.
        regions: offset and length of each image, (images, 2), filled.
        numbers: label, kind, checksum, (3,), filled.

    Returns:
        a status.
    """
    size, images, at = form[1], form[2], form[3]
    table = entry[size : size + images * _ENTRY_BYTES]
    if row < 0 or row >= file[1]:
        return MISPLACED
    if not _filled(file[0], form[0] + row * size, entry[:size]):
        return UNREADABLE
    if not _filled(file[0], file[3] + row * images * _ENTRY_BYTES, table):
        return UNREADABLE
    for k in range(3):
        numbers[k] = _number(entry, at + 8 * k)
    good = 0 <= numbers[0] < form[5] and 0 <= numbers[1] < form[6]
    for k in range(images):
        of_image = k * _ENTRY_BYTES
        place, length = _number(table, of_image + _START), _number(table, of_image + _LENGTH)
        good &= _number(table, of_image + _OWNER) == row
        good &= place == _number(entry, k * _IMAGE_BYTES + _PLACE)
        good &= 0 < length <= file[4] and file[2] <= place <= file[3] - length
        regions[k, 0], regions[k, 1] = place, length
    return GOOD if good else MISPLACED


@compiled
def _salted(which: Any, entry: Any, form: Any, tables: Any) -> Any:
    """`beton.checksum_salts` of one image."""
    head = np.empty(1, np.uint8)
    head[0] = which
    at = form[3]
    state = crc32(entry[at : at + 16], crc32(head, 0, tables), tables)
    return crc32(entry[at + 24 : at + 24 + form[4]], state, tables)


@compiled
def _fetch(file: Any, which: Any, region: Any, entry: Any, form: Any, sums: Any, tables: Any,
           jpeg: Any) -> Any:  # fmt: skip
    """Reads the JPEG of one image and compares its checksum."""
    if not _filled(file[0], region[0], jpeg):
        return UNREADABLE
    expected = np.uint32((np.uint64(sums) >> np.uint64(32 * which)) & np.uint64(0xFFFFFFFF))
    found = crc32(jpeg, _salted(which, entry, form, tables), tables)
    return GOOD if found == expected else ALTERED


@compiled
def _renew(decoder: Any) -> Any:
    """A new decoder in place of one that met a bad JPEG: it would refuse the next good one too."""
    _destroy(_at(decoder[0]))
    decoder[0] = _new()
    return UNDECODABLE


@compiled
def _expected_form(decoder: Any, jpeg: Any, side: Any, head: Any) -> Any:
    """Whether a JPEG is square, of the right side, in colour and without subsampling."""
    code = _header(
        _at(decoder[0]), jpeg.ctypes, len(jpeg),
        head[0:].ctypes, head[1:].ctypes, head[2:].ctypes, head[3:].ctypes,
    )  # fmt: skip
    fits = head[0] == side and head[1] == side
    return code == 0 and fits and head[2] == _NO_SUBSAMPLING and head[3] == _YCBCR


@compiled
def decode_planes(decoder: Any, jpeg: Any, planes: Any, addresses: Any, head: Any) -> Any:
    """A JPEG as Y, Cb and Cr, (3, S, S); a status."""
    side = planes.shape[1]
    if not _expected_form(decoder, jpeg, side, head):
        return _renew(decoder)
    for k in range(3):
        addresses[k] = planes[k].ctypes.data
    code = _to_planes(
        _at(decoder[0]), jpeg.ctypes, len(jpeg), addresses.ctypes, _i4(side), _at(0), _i4(side),
        _i4(_FAST_DCT),
    )  # fmt: skip
    return GOOD if code == 0 else _renew(decoder)


@compiled
def decode_pixels(decoder: Any, jpeg: Any, rgb: Any, head: Any) -> Any:
    """A JPEG as RGB, (S, S, 3); a status."""
    side = _i4(rgb.shape[0])
    if not _expected_form(decoder, jpeg, side, head):
        return _renew(decoder)
    code = _to_pixels(
        _at(decoder[0]), jpeg.ctypes, len(jpeg), rgb.ctypes, side, _i4(0), side, _i4(_RGB),
        _i4(_FAST_DCT),
    )  # fmt: skip
    return GOOD if code == 0 else _renew(decoder)


@compiled
def read_pairs(
    files: Any, form: Any, places: Any, decoder: Any, tables: Any, changes: Any,
    first: Any, second: Any, numbers: Any, status: Any,
) -> None:  # fmt: skip
    """Reads, checks, decodes and changes images of B pairs; all arrays are contiguous.

    Both images, or the first alone: as many as ``status`` has columns. Of what is not asked for
    only the place is looked at, which stands in the same entry.

    Args:
        files: of `file_table`.
        form: of `form_table`.
        places: shard and row of each pair, (B, 2) int64.
        decoder: one of `TurboJpeg.handles` that no other thread uses, (1,) int64.
        tables: of `kernels.crc_tables`.
        changes: flip, down, right, contrast, brightness of each image, (B, 2, 5) int64.
        first: (B, 3, S, S) uint8, filled.
        second: likewise, or (0, 3, S, S).
        numbers: label and kind of each pair, (B, 2) int64, filled.
        status: (B, 2) or (B, 1) uint8, filled; an image that is not good is not filled.
    """
    side, count = form[7], form[2]
    entry = np.empty(form[1] + count * _ENTRY_BYTES, np.uint8)
    regions, own = np.empty((count, 2), np.int64), np.empty(3, np.int64)
    planes, addresses = np.empty((3, side, side), np.uint8), np.empty(3, np.int64)
    head, jpeg = np.empty(4, np.int32), np.empty(1 << 16, np.uint8)
    for i in range(len(places)):
        file = files[places[i, 0]]
        status[i, :] = read_entry(file, form, places[i, 1], entry, regions, own)
        if status[i, 0] != GOOD:
            continue
        numbers[i, 0], numbers[i, 1] = own[0], own[1]
        for k in range(status.shape[1]):
            if regions[k, 1] > len(jpeg):
                jpeg = np.empty(regions[k, 1], np.uint8)
            data = jpeg[: regions[k, 1]]
            status[i, k] = _fetch(file, k, regions[k], entry, form, own[2], tables, data)
            if status[i, k] == GOOD:
                status[i, k] = decode_planes(decoder, data, planes, addresses, head)
            if status[i, k] == GOOD:
                place_planes(planes, changes[i, k], first[i] if k == 0 else second[i])


@compiled
def read_firsts(
    files: Any, form: Any, places: Any, decoder: Any, tables: Any,
    pixels: Any, numbers: Any, faces: Any, status: Any,
) -> None:  # fmt: skip
    """Reads, checks and decodes the first images of B samples, as they are.

    Args:
        files: of `file_table`.
        form: of `form_table`.
        places: shard and row of each sample, (B, 2) int64; a shard of -1: nothing to read.
        decoder: one of `TurboJpeg.handles` that no other thread uses, (1,) int64.
        tables: of `kernels.crc_tables`.
        pixels: (B, S, S, 3) uint8, filled.
        numbers: label and kind of each sample, (B, 2) int64, filled.
        faces: the bytes about each face, (B, F) uint8, filled.
        status: (B,) uint8, filled.
    """
    count = form[2]
    entry = np.empty(form[1] + count * _ENTRY_BYTES, np.uint8)
    regions, own = np.empty((count, 2), np.int64), np.empty(3, np.int64)
    head, jpeg = np.empty(4, np.int32), np.empty(1 << 16, np.uint8)
    for i in range(len(places)):
        status[i] = GOOD
        if places[i, 0] < 0:
            continue
        file = files[places[i, 0]]
        status[i] = read_entry(file, form, places[i, 1], entry, regions, own)
        if status[i] != GOOD:
            continue
        numbers[i, 0], numbers[i, 1] = own[0], own[1]
        faces[i] = entry[form[3] + 24 : form[3] + 24 + form[4]]
        if regions[0, 1] > len(jpeg):
            jpeg = np.empty(regions[0, 1], np.uint8)
        data = jpeg[: regions[0, 1]]
        status[i] = _fetch(file, 0, regions[0], entry, form, own[2], tables, data)
        if status[i] == GOOD:
            status[i] = decode_pixels(decoder, data, pixels[i], head)


def warm_up(side: int) -> None:
    """Compiles `read_pairs`, or loads it from the cache, before any thread calls it."""
    images = np.zeros((0, 3, side, side), np.uint8)
    read_pairs(
        np.zeros((1, 5), np.int64),
        np.zeros(8, np.int64),
        np.zeros((0, 2), np.int64),
        np.zeros(1, np.int64),
        crc_tables(),
        np.zeros((0, 2, 5), np.int64),
        images,
        images,
        np.zeros((0, 2), np.int64),
        np.zeros((0, 2), np.uint8),
    )


@compiled
def decode_all(data: Any, starts: Any, sizes: Any, decoder: Any) -> Any:
    """Decodes JPEGs of 112x112 one after the other into the same memory; how many were bad.

    Nothing but the decoder's own work: what a loader is measured against.
    """
    rgb, head = np.empty((112, 112, 3), np.uint8), np.empty(4, np.int32)
    bad = 0
    for i in range(len(starts)):
        bad += decode_pixels(decoder, data[starts[i] : starts[i] + sizes[i]], rgb, head) != GOOD
    return bad
