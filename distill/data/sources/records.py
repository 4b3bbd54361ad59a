"""InsightFace's record files: ``train.rec``, with or without ``train.idx`` and ``property``.

A record is MXNet's image record: flag (uint32), label (float32), two numbers (uint64), then, where
the flag is not 0, that many float32 labels in place of the one, then the bytes of the image. The
first label is the person. Records without an image describe the file: the one of key 0 says where
images end, and one a person says which images are theirs. They have two labels and no image.

With an index, records are read where its lines say; without one, or behind the last byte that it
names (it may have been cut off), in the order of the file. Both ways give a photograph the same
name, ``train.rec/@BYTE``. Nothing of the index is kept in memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from distill.data.images import Unusable
from distill.data.sources import Sample, damaged
from distill.data.sources.paths import opened
from distill.data.sources.recordio import DamagedRecord, Gap, Record, read_record, scan
from distill.errors import UserError

MAX_LABEL = 2**24
"""Largest label: beyond it float32 no longer tells whole numbers apart."""
PROPERTY = "property"
"""File beside a record file with its number of people and the size of its images."""

_IMAGE = struct.Struct("<IfQQ")
_LINE_MAX = 64
_LEAST_BYTES = 8 + _IMAGE.size + 96
"""Of a record with a photograph: its frame, what is before the image, and no JPEG is smaller."""


@dataclass(frozen=True)
class RecordSource:
    """The photographs of a record file.

    Attributes:
        path: the ``.rec``.
        index: the ``.idx`` beside it, or None.
        people: labels must be below this; None where no ``property`` says so.
    """

    path: Path
    index: Path | None
    people: int | None

    @classmethod
    def at(cls, path: Path) -> RecordSource:
        """The source at a ``.rec``, with what stands beside it.

        Raises:
            UserError: it cannot be read, is empty, or its ``property`` is no property.
        """
        with opened(path) as (_, size):
            if size == 0:
                raise UserError(f"{path}: empty (zero bytes)", fix="give a file with records")
        index = path.with_suffix(".idx")
        return cls(path, index if index.is_file() else None, _people(path.with_name(PROPERTY)))

    @property
    def name(self) -> str:
        """The names of the file and its folder: the manifest holds no absolute path."""
        return f"records:{self.path.resolve().parent.name}/{self.path.name}"

    @property
    def expected(self) -> int | None:
        """What the record of key 0 says, where that is the first of the file.

        No more than it has room for: the beginning of a larger file says what that one held.
        """
        with opened(self.path) as (file, size):
            try:
                image = ImageRecord.parse(read_record(file, 0, size).data)
            except DamagedRecord:
                return None
        if image.image or not image.describes_the_file:
            return None
        return min(int(image.labels[0]) - 1, size // _LEAST_BYTES)

    def __iter__(self) -> Iterator[Sample]:
        with opened(self.path) as (file, size):
            if self.index is None:
                found: Iterator[Sample | None] = map(self._as_sample, scan(file, size))
            else:
                found = self._indexed(file, size, self.index)
            yield from (sample for sample in found if sample is not None)

    def _indexed(self, file: BinaryIO, size: int, index: Path) -> Iterator[Sample | None]:
        """What the index names, in its order; then what lies behind all that, in the file's."""
        covered = 0
        with opened(index) as (lines, _):
            for number, line in enumerate(_lines(lines), 1):
                try:
                    key, offset = _key_and_offset(line, size)
                    record = read_record(file, offset, size)
                except DamagedRecord as fault:
                    origin = f"{self.path.name}/{index.name}:{number}"
                    yield damaged(origin, f"line {number} of the index: {fault.reason}")
                    continue
                covered = max(covered, record.end)
                yield self._as_sample(record, key)
        yield from map(self._as_sample, scan(file, size, covered))

    def _as_sample(self, found: Record | Gap, key: int | None = None) -> Sample | None:
        """A photograph, damage, or None for a record that describes the file or a person."""
        origin = f"{self.path.name}/@{found.offset}"
        if isinstance(found, Gap):
            return damaged(origin, f"{found.reason}; {found.end - found.offset} bytes left out")
        try:
            record = ImageRecord.parse(found.data)
            if not record.image and len(record.labels) > 1:
                return None
            if record.describes_the_file and 0 in (found.offset, key):
                raise DamagedRecord("labels of the file's own description, yet with an image")
            identity = record.identity(self.people)
        except DamagedRecord as fault:
            return damaged(origin, fault.reason)
        return Sample(origin, identity, partial(image_at, self.path, found.offset))


@dataclass(frozen=True)
class ImageRecord:
    """One image record, taken apart.

    Attributes:
        labels: one or more, as they stand there.
        image: the bytes of the image.
    """

    labels: tuple[float, ...]
    image: bytes

    @classmethod
    def parse(cls, data: bytes) -> ImageRecord:
        """A record's content.

        Raises:
            DamagedRecord: too short for what it says of itself.
        """
        if len(data) < _IMAGE.size:
            raise DamagedRecord(f"record of {len(data)} bytes, an image record has {_IMAGE.size}")
        count, label = _IMAGE.unpack_from(data)[:2]
        if count == 0:
            return cls((label,), data[_IMAGE.size :])
        start = _IMAGE.size + 4 * count
        if start > len(data):
            raise DamagedRecord(f"record of {len(data)} bytes says that it has {count} labels")
        return cls(struct.unpack_from(f"<{count}f", data, _IMAGE.size), data[start:])

    @property
    def describes_the_file(self) -> bool:
        """Whether the labels can be those of key 0: end of the images, end of everything."""
        return (
            len(self.labels) == 2
            and all(map(_is_whole, self.labels))
            and (1 <= self.labels[0] <= self.labels[1])
        )

    def identity(self, people: int | None) -> str:
        """The person, as a whole number.

        Raises:
            DamagedRecord: the first label is no number of a person, or there is no image.
        """
        label = self.labels[0]
        if not self.image:
            raise DamagedRecord(f"no image in the record (label {label:g})")
        if not _is_whole(label) or not 0 <= label <= MAX_LABEL:
            raise DamagedRecord(f"label {label:g} is no person's number")
        if people is not None and label >= people:
            raise DamagedRecord(f"label {label:g}, {PROPERTY} has {people} people")
        return str(int(label))


def image_at(path: Path, offset: int) -> bytes:
    """The image in the record at ``offset``.

    Raises:
        Unusable: it cannot be read any more.
    """
    try:
        with opened(path) as (file, size):
            return ImageRecord.parse(read_record(file, offset, size).data).image
    except DamagedRecord as fault:
        raise Unusable(fault.reason) from None
    except UserError as fault:
        raise Unusable(fault.what) from None


def _is_whole(label: float) -> bool:
    return math.isfinite(label) and label == int(label)


def _lines(index: BinaryIO) -> Iterator[bytes]:
    """Lines of an index; of one that is too long, its first part."""
    while line := index.readline(_LINE_MAX):
        yield line
        while len(line) == _LINE_MAX and not line.endswith(b"\n"):
            line = index.readline(_LINE_MAX)


def _key_and_offset(line: bytes, size: int) -> tuple[int, int]:
    """The two numbers of a line: key of a record, and where it begins.

    Raises:
        DamagedRecord: other than two numbers, or no place of a record in a file of ``size`` bytes.
    """
    words = line.split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        raise DamagedRecord("not a key and a place")
    key, offset = map(int, words)
    if offset >= size:
        raise DamagedRecord(f"points at byte {offset}, past the end ({size} bytes)")
    if offset % 4:
        raise DamagedRecord(f"points at byte {offset}, where no record can begin")
    return key, offset


def _people(path: Path) -> int | None:
    """The number of people that a ``property`` file tells: ``people,height,width``."""
    if not path.is_file():
        return None
    with opened(path) as (file, _):
        words = file.read(_LINE_MAX).strip().split(b",")
    if not words[0].isdigit():
        raise UserError(
            f"{path}: begins with {words[0].decode(errors='replace')!r}, not a number of people",
            fix="write it as PEOPLE,112,112, or move it away",
        )
    return int(words[0])
