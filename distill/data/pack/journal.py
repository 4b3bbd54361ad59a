"""What the first round found, a line a photograph, written down as it goes.

A killed packer need not look again; and nothing of a photograph's names is kept in memory.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from distill.files import disk_errors

JOURNAL_NAME = "journal.jsonl"
_AT_A_TIME, _NEAR = 4096, 8
"""Records that are read at a time where many are wanted, and how far apart they may be: a line that
nobody wants costs less than another call."""


class Record(NamedTuple):
    """What is known of one photograph.

    Attributes:
        origin: its name within the source.
        identity: the person's name.
        face: whether there is a face; it lies in the row of the spool that has the record's number.
        sha256: of its content; empty where it could not be read.
        note: why there is no face; else what is worth knowing of it, or nothing.
    """

    origin: str
    identity: str
    face: bool
    sha256: bytes
    note: str

    def line(self) -> bytes:
        """Itself as a line of the journal."""
        fields = [self.origin, self.identity, int(self.face), self.sha256.hex(), self.note]
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Self:
        """The record of one line.

        Raises:
            ValueError: not a whole line of a journal.
        """
        if not line.endswith(b"\n"):
            raise ValueError("a line without an end")
        origin, identity, face, sha256, note = json.loads(line)
        return cls(origin, identity, bool(face), bytes.fromhex(sha256), note)


class Journal:
    """The records of one source in its order, 8 bytes each in memory; `close` it.

    Args:
        path: of the file; what an earlier packer wrote is in it, see `resume`.
        named: what errors speak of.

    Raises:
        UserError: the disk is full.
    """

    def __init__(self, path: Path, named: Path) -> None:
        self.named = named
        with disk_errors(named):
            path.touch()
            self._file = path.open("r+b")
        self._starts = array("Q")
        self._end = 0

    def __len__(self) -> int:
        return len(self._starts)

    def resume(self, faces: int) -> Iterator[Record]:
        """The records of an earlier packer, as far as they are whole and their faces are there.

        Those that were taken count as this journal's own; the rest goes with the next `add`.

        Args:
            faces: rows of the spool.
        """
        for line in self._file:
            try:
                record = Record.of_line(line)
            except ValueError:
                return
            if record.face and len(self) >= faces:
                return
            self._count(line)
            yield record

    def forget(self) -> None:
        """Begins anew."""
        self._starts, self._end = array("Q"), 0

    def begin(self) -> None:
        """Cuts off what was not resumed; from here on records are added."""
        with disk_errors(self.named):
            self._file.seek(self._end)
            self._file.truncate()

    def add(self, lines: Iterable[bytes]) -> None:
        """Adds records, as lines, whose faces are in the spool."""
        with disk_errors(self.named):
            for line in lines:
                self._file.write(line)
                self._count(line)

    def _count(self, line: bytes) -> None:
        self._starts.append(self._end)
        self._end += len(line)

    def flush(self) -> None:
        """Lets `record` find what was added."""
        with disk_errors(self.named):
            self._file.flush()

    def record(self, number: int) -> Record:
        """One record, by its number; after `flush`."""
        return Record.of_line(self._bytes(number, number + 1))

    def records(self, numbers: npt.NDArray[np.uint32]) -> Iterator[Record]:
        """Some records, whose numbers rise; after `flush`."""
        return map(Record.of_line, self._lines(numbers))

    def origins(self, numbers: npt.NDArray[np.uint32]) -> Iterator[str]:
        """The origins of some records, whose numbers rise, without the rest; after `flush`."""
        first = json.JSONDecoder()
        return (first.raw_decode(line.decode(), 1)[0] for line in self._lines(numbers))

    def _lines(self, numbers: npt.NDArray[np.uint32]) -> Iterator[bytes]:
        """The lines of some records, those that are near to each other read together."""
        for start in range(0, len(numbers), _AT_A_TIME):
            some = numbers[start : start + _AT_A_TIME]
            breaks, listed = np.flatnonzero(np.diff(some) > _NEAR) + 1, some.tolist()
            for first, end in pairwise([0, *breaks.tolist(), len(listed)]):
                yield from self._read_together(listed[first:end])

    def _read_together(self, numbers: list[int]) -> Iterator[bytes]:
        begin, data = self._starts[numbers[0]], self._bytes(numbers[0], numbers[-1] + 1)
        for number in numbers:
            at = self._starts[number] - begin
            yield data[at : data.index(b"\n", at) + 1]

    def _bytes(self, start: int, stop: int) -> bytes:
        """The records from ``start`` to before ``stop`` as they stand."""
        begin = self._starts[start]
        end = self._starts[stop] if stop < len(self) else self._end
        return os.pread(self._file.fileno(), end - begin, begin)

    def __iter__(self) -> Iterator[Record]:
        return (self.record(number) for number in range(len(self)))

    def close(self) -> None:
        """Ends the file."""
        with disk_errors(self.named):
            self._file.close()
