"""MXNet's RecordIO framing, read from its description, with what to do where it is damaged.

A record is one part or several. A part is two little-endian words, then its bytes, then zeros up
to a multiple of 4. The first word is `MAGIC`; of the second, the upper 3 bits say which part of a
record it is and the lower 29 how many bytes it has. A writer cuts a record wherever the magic would
stand in it at a multiple of 4, and leaves that magic out; a reader puts it back between the parts.
So inside a part the magic never stands at a multiple of 4, which is what makes damage visible and
lets a reader find the next record after it. (dmlc-core, `recordio.h`.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAGIC = 0xCED7230A
WORD = MAGIC.to_bytes(4, "little")
WHOLE, START, MIDDLE, END = range(4)
"""Which part of a record: all of it, its first, one in between, its last."""
MAX_RECORD_BYTES = 256 * 2**20
"""Records larger than this are not read."""

_HEAD = struct.Struct("<II")
_CHUNK = 1 << 16


class DamagedRecord(Exception):
    """No whole record at a place; ``reason`` is one line and names the byte."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Record(NamedTuple):
    """One record.

    Attributes:
        offset: of its first byte in the file.
        end: of the byte after its last one, padding included.
        data: its content, parts joined.
    """

    offset: int
    end: int
    data: bytes


class Gap(NamedTuple):
    """Bytes in which no record can be read.

    Attributes:
        offset: of the first byte, where a record should have begun.
        end: of the byte after the last one, where the next record begins or the file ends.
        reason: why.
    """

    offset: int
    end: int
    reason: str


def scan(file: BinaryIO, size: int, start: int = 0) -> Iterator[Record | Gap]:
    """Everything in a file from a place on, in order: records, and what is damaged between them.

    Args:
        file: readable and seekable.
        size: its length in bytes.
        start: where a record begins, in bytes; what is before it is passed over.
    """
    last: Record | None = None  # held back until it is clear that another one begins behind it
    place = start
    while place < size:
        try:
            found = read_record(file, place, size)
        except DamagedRecord as fault:
            # Where bytes were lost, the next record begins inside of what was taken for the last.
            end = next_record(file, last.offset if last else place, size)
            if end == place:
                end = next_record(file, place, size)
            if last and end < place:
                yield Gap(last.offset, end, f"no record ends at byte {place}")
            else:
                yield from [last] if last else []
                yield Gap(place, end, fault.reason)
            last, place = None, end
            continue
        if last:
            yield last
        last, place = found, found.end
    if last:
        yield last


def read_record(file: BinaryIO, offset: int, size: int) -> Record:
    """The record that begins at ``offset``.

    Args:
        file: readable and seekable.
        offset: in bytes.
        size: length of the file in bytes.

    Raises:
        DamagedRecord: no record begins there, or it is damaged, cut off or too large.
    """
    parts: list[bytes] = []
    place, total = offset, 0
    while True:
        flag, length = _head(file, place, size, first=not parts)
        total += length + 4
        if total > MAX_RECORD_BYTES:
            raise DamagedRecord(f"record at byte {offset} larger than {MAX_RECORD_BYTES} bytes")
        parts.append(_body(file, place + 8, length))
        place = min(place + 8 + length + -length % 4, size)
        if flag in (WHOLE, END):
            break
    if _flag_at(file, place, size) in (MIDDLE, END):
        raise DamagedRecord(f"record at byte {offset} cut off by a wrong mark of its last part")
    return Record(offset, place, WORD.join(parts))


def next_record(file: BinaryIO, after: int, size: int) -> int:
    """Where the next record begins after damage at ``after``; ``size`` if none does.

    A magic in step with the records so far is enough, since no part holds one there. Out of
    step (bytes were lost or added) it may be part of an image, unless its length leads to the
    next one or to the end.
    """
    for place in _magics(file, after + 1, size):
        flag = _flag_at(file, place, size)
        if flag not in (WHOLE, START):
            continue
        if (place - after) % 4 == 0 or _leads_on(file, place, size):
            return place
    return size


def _head(file: BinaryIO, place: int, size: int, *, first: bool) -> tuple[int, int]:
    """Kind and length of the part at ``place``, which is the first of its record or is not."""
    if place + 8 > size:
        raise DamagedRecord(f"file ends at byte {size}, inside the head of a record")
    file.seek(place)
    magic, word = _HEAD.unpack(_exactly(file, 8))
    if magic != MAGIC:
        raise DamagedRecord(f"wrong magic {magic:#010x} at byte {place}")
    flag, length = word >> 29, word & (1 << 29) - 1
    if flag not in ((WHOLE, START) if first else (MIDDLE, END)):
        expected = "a record should begin" if first else "it should go on"
        raise DamagedRecord(f"part of kind {flag} at byte {place}, where {expected}")
    if place + 8 + length > size:
        raise DamagedRecord(f"record at byte {place} of {length} bytes, the file has {size}")
    return flag, length


def _body(file: BinaryIO, place: int, length: int) -> bytes:
    """The bytes of a part; reading stops at the first magic that cannot be in one."""
    chunks: list[bytes] = []
    for done in range(0, length, _CHUNK):
        chunk = _exactly(file, min(_CHUNK, length - done))
        if (inside := _aligned(chunk)) >= 0:
            raise DamagedRecord(
                f"another record begins at byte {place + done + inside}, inside of one"
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _aligned(chunk: bytes) -> int:
    """Place of the first magic at a multiple of 4, or -1."""
    place = chunk.find(WORD)
    while place >= 0 and place % 4:
        place = chunk.find(WORD, place + 1)
    return place


def _flag_at(file: BinaryIO, place: int, size: int) -> int | None:
    """Kind of the part at ``place``; None where no part begins."""
    if place + 8 > size:
        return None
    file.seek(place)
    magic, word = _HEAD.unpack(_exactly(file, 8))
    return int(word >> 29) if magic == MAGIC else None


def _leads_on(file: BinaryIO, place: int, size: int) -> bool:
    """Whether the part at ``place`` ends where another begins, or with the file."""
    file.seek(place + 4)
    length = int.from_bytes(_exactly(file, 4), "little") & (1 << 29) - 1
    end = place + 8 + length + -length % 4
    return end == size or _flag_at(file, end, size) is not None


def _magics(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    """Places of all magics from ``start`` on."""
    place, tail = start, b""
    while place < size:
        file.seek(place)
        chunk = tail + _exactly(file, min(_CHUNK, size - place))
        base, place = place - len(tail), min(place + _CHUNK, size)
        found = chunk.find(WORD)
        while found >= 0:
            yield base + found
            found = chunk.find(WORD, found + 1)
        tail = chunk[-3:]


def _exactly(file: BinaryIO, count: int) -> bytes:
    """So many bytes.

    Raises:
        DamagedRecord: the file has become shorter, or its disk cannot be read.
    """
    try:
        data = file.read(count)
    except OSError as fault:
        raise DamagedRecord(f"cannot be read: {fault.strerror or fault}") from None
    if len(data) < count:
        raise DamagedRecord("the file has become shorter while it was read")
    return data
