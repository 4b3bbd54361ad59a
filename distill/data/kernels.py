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
def _tone(contrast: Any, brightness: Any) -> Any:
    """`augment.tone` as 32-bit numbers."""
    gain = (contrast * brightness + 32768) >> 16
    offset = ((65536 - contrast) * 255 * brightness >> 17) + 32768
    return _i4(gain), _i4(offset)


@compiled
def _to_rgb(
    luma: Any, blue: Any, red: Any, gain: Any, offset: Any, to_r: Any, to_g: Any, to_b: Any
) -> None:
    """Y, Cb and Cr, (N,) each, as toned R, G and B; JFIF's formulas as libjpeg rounds them."""
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
def _to_tone(values: Any, gain: Any, offset: Any, out: Any) -> None:
    """Values of one colour, (N,), toned."""
    for x in range(len(values)):
        out[x] = _toned(_i4(values[x]), gain, offset)


@compiled
def _mirrored(planes: Any) -> Any:
    """Three planes, (3, S, S), with every row from its end to its beginning."""
    out = np.empty_like(planes)
    last = np.uint64(planes.shape[2] - 1)
    for k in range(3):
        for y in range(planes.shape[1]):
            row, turned = planes[k, y], out[k, y]
            for x in range(len(row)):
                turned[x] = row[last - np.uint64(x)]
    return out


@compiled
def _apart(source: Any) -> Any:
    """The colours of an image, (S, S, 3), as planes, (3, S, S)."""
    side = source.shape[0]
    planes = np.empty((3, side, side), np.uint8)
    for k in range(3):
        for y in range(side):
            row, to = source[y], planes[k, y]
            for x in range(side):
                to[x] = row[x, k]
    return planes


@compiled
def _moved(change: Any, side: Any) -> Any:
    """Of an image as one line of pixels: from which on they stay, from where on, and how many.

    Moved down and right, the image is moved along that line. What comes in at the ends of rows
    does not belong there: `_repeat_edges` writes over it.
    """
    step = change[1] * side + change[2]
    return max(-step, 0), max(step, 0), side * side - abs(step)


@compiled
def _repeat_edges(change: Any, out: Any) -> None:
    """The edges of an image that was moved, (3, S, S), repeated into what it left open."""
    down, right, side = change[1], change[2], out.shape[1]
    top, bottom = max(down, 0), side - 1 + min(down, 0)
    left, end = max(right, 0), side - 1 + min(right, 0)
    for k in range(3):
        for y in range(top, bottom + 1):
            row = out[k, y]
            row[:left] = row[left]
            row[end + 1 :] = row[end]
        for y in range(top):
            out[k, y] = out[k, top]
        for y in range(bottom + 1, side):
            out[k, y] = out[k, bottom]


@compiled
def place_planes(planes: Any, change: Any, out: Any) -> None:
    """`augment.apply` for one image in Y, Cb and Cr, (3, S, S), to RGB, (3, S, S)."""
    side = planes.shape[1]
    gain, offset = _tone(change[3], change[4])
    start, to, count = _moved(change, side)
    source = (_mirrored(planes) if change[0] else planes).reshape(3, side * side)
    lines, stop, end = out.reshape(3, side * side), start + count, to + count
    _to_rgb(
        source[0, start:stop], source[1, start:stop], source[2, start:stop], gain, offset,
        lines[0, to:end], lines[1, to:end], lines[2, to:end],
    )  # fmt: skip
    _repeat_edges(change, out)


@compiled
def place(source: Any, change: Any, out: Any) -> None:
    """`augment.apply` for one RGB image: (S, S, 3) in, (3, S, S) out."""
    side = source.shape[0]
    gain, offset = _tone(change[3], change[4])
    start, to, count = _moved(change, side)
    planes = _apart(source)
    lines = (_mirrored(planes) if change[0] else planes).reshape(3, side * side)
    for k in range(3):
        _to_tone(
            lines[k, start : start + count], gain, offset,
            out.reshape(3, side * side)[k, to : to + count],
        )  # fmt: skip
    _repeat_edges(change, out)


@compiled
def place_all(sources: Any, changes: Any, out: Any) -> None:
    """`place` for B images: (B, S, S, 3) and (B, 5) in, (B, 3, S, S) out."""
    for i in range(len(sources)):
        place(sources[i], changes[i], out[i])
