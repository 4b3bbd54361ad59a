"""Compiled pixels and checksums: what every image passes between its JPEG and its batch.

`augment` says in plain numpy what changes are; here are the same numbers as plain loops in 32-bit
arithmetic, which the compiler turns into vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distill.data.compiled import compiled

_i4 = np.int32
_CRC_TABLES = 16


def crc_tables() -> npt.NDArray[np.uint32]:
    """Tables for CRC-32 16 bytes at a time, (16, 256): row k is byte b followed by k zero bytes.

    The slicing method of Kounavis and Berry, "A systematic approach to building high performance
    software-based CRC generators", ISCC 2005; the polynomial is that of zlib.
    """
    base = [_entry(byte) for byte in range(256)]
    rows = [base]
    for _ in range(_CRC_TABLES - 1):
        rows.append([base[c & 0xFF] ^ (c >> 8) for c in rows[-1]])
    return np.array(rows, np.uint32)


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0xEDB88320 if byte & 1 else 0)
    return byte


@compiled
def _four(word: Any, first: Any, tables: Any) -> Any:
    """What four bytes contribute, the lowest of them looked up in row ``first``."""
    low = np.uint32(255)
    return (
        tables[first, word & low]
        ^ tables[first - 1, (word >> np.uint32(8)) & low]
        ^ tables[first - 2, (word >> np.uint32(16)) & low]
        ^ tables[first - 3, word >> np.uint32(24)]
    )


@compiled
def crc32(data: Any, state: Any, tables: Any) -> Any:
    """`zlib.crc32(data, state)` for a contiguous uint8 array."""
    crc = np.uint32(state) ^ np.uint32(0xFFFFFFFF)
    whole = len(data) // 16 * 16
    words = data[:whole].view(np.uint32)
    for i in range(0, whole // 4, 4):
        crc = (
            _four(words[i] ^ crc, 15, tables)
            ^ _four(words[i + 1], 11, tables)
            ^ _four(words[i + 2], 7, tables)
            ^ _four(words[i + 3], 3, tables)
        )
    for i in range(whole, len(data)):
        crc = tables[0, (crc ^ np.uint32(data[i])) & np.uint32(255)] ^ (crc >> np.uint32(8))
    return np.uint32(crc ^ np.uint32(0xFFFFFFFF))


@compiled
def _within(value: Any) -> Any:
    """Clipped to 0 .. 255."""
    return min(max(value, _i4(0)), _i4(255))


@compiled
def _toned(value: Any, gain: Any, offset: Any) -> Any:
    """`augment.tone_table` of one value."""
    return np.uint8(_within(_i4(_i4(_i4(value * gain) + offset) >> _i4(16))))


@compiled
def _row_to_rgb(luma: Any, blue: Any, red: Any, gain: Any, offset: Any, out: Any) -> None:
    """A row of Y, Cb and Cr as toned R, G and B, (3, S); JFIF's formulas as libjpeg rounds them."""
    to_r, to_g, to_b = out[0], out[1], out[2]
    half = _i4(32768)
    for x in range(len(luma)):
        y, u, v = _i4(luma[x]), _i4(_i4(blue[x]) - _i4(128)), _i4(_i4(red[x]) - _i4(128))
        r = _within(_i4(y + _i4(_i4(_i4(_i4(91881) * v) + half) >> _i4(16))))
        green = _i4(_i4(_i4(_i4(-22554) * u) + half) - _i4(_i4(46802) * v))
        g = _within(_i4(y + _i4(green >> _i4(16))))
        b = _within(_i4(y + _i4(_i4(_i4(_i4(116130) * u) + half) >> _i4(16))))
        to_r[x] = _toned(r, gain, offset)
        to_g[x] = _toned(g, gain, offset)
        to_b[x] = _toned(b, gain, offset)


@compiled
def _moved(row: Any, flip: Any, right: Any, out: Any) -> None:
    """A row mirrored or not and moved to the right, its edges repeated."""
    side = len(row)
    low, high = max(right, 0), side + min(right, 0)
    inner = out[low:high]
    if flip:
        top = np.uint64(side - 1 - max(-right, 0))
        for x in range(len(inner)):
            inner[x] = row[top - np.uint64(x)]
    else:
        kept = row[low - right : high - right]
        for x in range(len(inner)):
            inner[x] = kept[x]
    for x in range(low):
        out[x] = row[side - 1] if flip else row[0]
    for x in range(high, side):
        out[x] = row[0] if flip else row[side - 1]


@compiled
def _tone(contrast: Any, brightness: Any) -> Any:
    """`augment.tone` as 32-bit numbers."""
    gain = (contrast * brightness + 32768) >> 16
    offset = ((65536 - contrast) * 255 * brightness >> 17) + 32768
    return _i4(gain), _i4(offset)


@compiled
def place_planes(planes: Any, change: Any, out: Any) -> None:
    """`augment.apply` for one image in Y, Cb and Cr, (3, S, S), to RGB, (3, S, S)."""
    side = planes.shape[1]
    flip, down, right = change[0], change[1], change[2]
    gain, offset = _tone(change[3], change[4])
    rows = np.empty((3, side), np.uint8)
    for y in range(side):
        s = min(max(y - down, 0), side - 1)
        _row_to_rgb(planes[0, s], planes[1, s], planes[2, s], gain, offset, rows)
        for k in range(3):
            _moved(rows[k], flip, right, out[k, y])


@compiled
def place(source: Any, change: Any, out: Any) -> None:
    """`augment.apply` for one RGB image: (S, S, 3) in, (3, S, S) out."""
    side = source.shape[0]
    flip, down, right = change[0], change[1], change[2]
    gain, offset = _tone(change[3], change[4])
    rows = np.empty((3, side), np.uint8)
    for y in range(side):
        s = min(max(y - down, 0), side - 1)
        for k in range(3):
            row = rows[k]
            for x in range(side):
                row[x] = _toned(_i4(source[s, x, k]), gain, offset)
            _moved(row, flip, right, out[k, y])


@compiled
def place_all(sources: Any, changes: Any, out: Any) -> None:
    """`place` for B images: (B, S, S, 3) and (B, 5) in, (B, 3, S, S) out."""
    for i in range(len(sources)):
        place(sources[i], changes[i], out[i])
