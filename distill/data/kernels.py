"""Compiled inner loops of the FFCV reader: check, decode, change and lay out the images of a batch.

Written for numba's on-disk cache: FFCV's decoder is called by symbol name, not through ctypes
(whose addresses numba refuses to cache), so only the very first process on a machine compiles.
Plain serial loops that release the GIL; the reader runs them in several threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
from numba import njit, types

_SYMBOL = "pairdistill_ffcv_imdecode"
_pointer, _u32 = types.voidptr, types.uint32
# int imdecode(source, size, height, width, destination, crop height and width, offsets x and y,
#              scale numerator and denominator, enable crop, mirror), as in libffcv.cpp
_imdecode = types.ExternalFunction(
    _SYMBOL,
    types.int32(
        _pointer, types.uint64, _u32, _u32, _pointer, *[_u32] * 6, types.uint8, types.uint8
    ),
)

GOOD, ALTERED, UNDECODABLE = 0, 1, 2
"""Status of an image: fine; other bytes than were packed; no JPEG decoder takes it."""


def compiled(function: Callable[..., Any]) -> Any:
    """``function`` as machine code that releases the GIL, kept on disk where there is a place.

    Numba keeps it beside this file or below the user's cache folder; on a machine where neither
    can be written, every process compiles for itself (about two seconds).
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return njit(nogil=True)(function)


def bind_decoder(address: int) -> None:
    """Makes the C function at ``address`` the decoder of these loops (before their first call)."""
    llvm.add_symbol(_SYMBOL, address)


def crc_tables() -> npt.NDArray[np.uint32]:
    """Tables for CRC-32 eight bytes at a time, (8, 256): row k is byte b followed by k zero bytes.

    The slicing method of Kounavis and Berry, "A systematic approach to building high performance
    software-based CRC generators", ISCC 2005; the polynomial is that of zlib.
    """
    base = [_entry(byte) for byte in range(256)]
    rows = [base]
    for _ in range(7):
        rows.append([base[c & 0xFF] ^ (c >> 8) for c in rows[-1]])
    return np.array(rows, np.uint32)


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0xEDB88320 if byte & 1 else 0)
    return byte


@compiled
def crc32(data: Any, state: Any, tables: Any) -> Any:
    """`zlib.crc32(data, state)` for a uint8 array."""
    crc = np.uint32(state) ^ np.uint32(0xFFFFFFFF)
    whole = len(data) // 8 * 8
    for i in range(0, whole, 8):
        a = crc ^ (
            np.uint32(data[i])
            | np.uint32(data[i + 1]) << np.uint32(8)
            | np.uint32(data[i + 2]) << np.uint32(16)
            | np.uint32(data[i + 3]) << np.uint32(24)
        )
        crc = (
            tables[7, a & 0xFF]
            ^ tables[6, (a >> 8) & 0xFF]
            ^ tables[5, (a >> 16) & 0xFF]
            ^ tables[4, (a >> 24) & 0xFF]
            ^ tables[3, data[i + 4]]
            ^ tables[2, data[i + 5]]
            ^ tables[1, data[i + 6]]
            ^ tables[0, data[i + 7]]
        )
    for i in range(whole, len(data)):
        crc = tables[0, (crc ^ data[i]) & 0xFF] ^ (crc >> np.uint32(8))
    return np.uint32(crc ^ np.uint32(0xFFFFFFFF))


@compiled
def place(
    source: Any, flip: Any, down: Any, right: Any, contrast: Any, brightness: Any, out: Any
) -> None:
    """`augment.apply` for one image: (S, S, 3) in, (3, S, S) out."""
    side = source.shape[0]
    tone = np.empty(256, np.uint8)
    for v in range(256):
        doubled = (2 * v - 255) * contrast + 255 * 65536
        tone[v] = min(max((doubled * brightness + (1 << 32)) >> 33, 0), 255)
    columns = np.empty(side, np.int64)
    for x in range(side):
        column = min(max(x - right, 0), side - 1)
        columns[x] = side - 1 - column if flip else column
    for y in range(side):
        row = source[min(max(y - down, 0), side - 1)]
        for x in range(side):
            column = columns[x]
            out[0, y, x] = tone[row[column, 0]]
            out[1, y, x] = tone[row[column, 1]]
            out[2, y, x] = tone[row[column, 2]]


@compiled
def decode_images(
    file: Any, regions: Any, crcs: Any, changes: Any, tables: Any, out: Any, status: Any
) -> None:
    """Decodes B images of one side of a batch.

    Args:
        file: the mapped `.beton`, (bytes,) uint8.
        regions: offset and length of each JPEG, (B, 2) int64.
        crcs: initial and expected CRC-32 of each, (B, 2) uint32.
        changes: flip, down, right, contrast, brightness of each, (B, 5) int64.
        tables: of `crc_tables`.
        out: (B, 3, S, S) uint8, filled.
        status: (B,) uint8, filled with `GOOD`, `ALTERED` or `UNDECODABLE`.
    """
    side = out.shape[2]
    scratch = np.zeros((side, side, 3), np.uint8)
    for i in range(len(regions)):
        jpeg = file[regions[i, 0] : regions[i, 0] + regions[i, 1]]
        if crc32(jpeg, crcs[i, 0], tables) != crcs[i, 1]:
            status[i] = ALTERED
            continue
        code = _imdecode(
            jpeg.ctypes, len(jpeg), side, side, scratch.ctypes, side, side, 0, 0, 1, 1, 0, 0
        )
        if code != 0:
            status[i] = UNDECODABLE
            continue
        status[i] = GOOD
        flip, down, right, contrast, brightness = changes[i]
        place(scratch, flip, down, right, contrast, brightness, out[i])


def warm_up() -> None:
    """Compiles `decode_images`, or loads it from the cache, before any thread calls it."""
    file = np.zeros(1, np.uint8)
    file.setflags(write=False)  # as a mapped file is
    decode_images(
        file,
        np.zeros((0, 2), np.int64),
        np.zeros((0, 2), np.uint32),
        np.zeros((0, 5), np.int64),
        crc_tables(),
        np.zeros((0, 3, 1, 1), np.uint8),
        np.zeros(0, np.uint8),
    )
