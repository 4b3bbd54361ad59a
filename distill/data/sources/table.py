"""CSV files (or TSV): one line a photograph, with its path, its person and perhaps ten landmarks.

The first line names the columns. Paths are relative to the folder of the file, or to a folder that
is given, and must lie below it; an absolute path is taken only if it does.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distill.data.images import Unusable
from distill.data.sources import Landmarks, Sample, damaged
from distill.data.sources.folder import read_file
from distill.data.sources.paths import Below, opened
from distill.data.sources.values import IDENTITY_COLUMNS, column, identity_of, landmarks_of
from distill.errors import UserError

TABLE_ENDINGS = (".csv", ".tsv")
PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path")
"""What the column with the path may be called, the first that is there."""
POINT_COLUMNS = tuple(f"{axis}{point}" for point in range(1, 6) for axis in "xy")
"""The columns of landmarks: x1, y1, x2, ... y5; all of them or none."""


@dataclass(frozen=True)
class TableSource:
    """The photographs that a CSV file lists, in its order.

    Attributes:
        path: the file.
        root: folder that its paths are relative to, and below which all of them must lie; no links.
        columns: of the path, of the person and, unless empty, of the landmarks.
    """

    path: Path
    root: str
    columns: tuple[str, str, tuple[str, ...]]

    @classmethod
    def at(
        cls,
        path: Path,
        root: Path | None = None,
        image: str | None = None,
        identity: str | None = None,
    ) -> TableSource:
        """The source at a CSV file.

        Args:
            path: the file.
            root: of the photographs; the folder of the file if None.
            image: name of the column with the paths, if it is none of `PATH_COLUMNS`.
            identity: name of the column with the people.

        Raises:
            UserError: the file is missing or empty, or lacks a column, or ``root`` is no folder.
        """
        top = root or path.parent
        if not top.is_dir():
            raise UserError(f"{top}: no such folder", fix="give the folder of the photographs")
        names = _header(path)
        points = tuple(name for name in POINT_COLUMNS if name in names)
        if points and len(points) < len(POINT_COLUMNS):
            raise UserError(
                f"{path}: {len(points)} of the ten landmark columns", fix="give x1,y1 .. x5,y5"
            )
        paths = column(path, names, PATH_COLUMNS, image, "--image-column")
        people = column(path, names, IDENTITY_COLUMNS, identity, "--identity-column")
        return cls(path, os.path.realpath(top), (paths, people, points))

    @property
    def name(self) -> str:
        """The file's own name: the manifest holds no absolute path."""
        return f"table:{self.path.name}"

    @property
    def expected(self) -> None:
        """Only reading would tell."""
        return

    def __iter__(self) -> Iterator[Sample]:
        with _table(self.path) as (lines, rows):
            names, below = list[str](), Below(self.root)
            while True:
                begin = lines.number + 1
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as fault:
                    at = f"{self.path.name}:{begin}"
                    yield damaged(at, f"line {begin} to {lines.number}: {fault}")
                    continue
                if not names:
                    names = row
                elif row:
                    yield self._sample(names, row, begin, below)

    def _sample(self, names: Sequence[str], row: Sequence[str], line: int, below: Below) -> Sample:
        """The photograph of one line."""
        at = f"{self.path.name}:{line}"
        if len(row) != len(names):
            return damaged(at, f"line {line}: {len(row)} values for {len(names)} columns")
        values = dict(zip(names, row, strict=True))
        image, person, points = self.columns
        try:
            identity = identity_of(values[person])
            path = below(values[image])
            landmarks = _points(values, points)
        except Unusable as fault:
            return damaged(at, f"line {line}: {fault.reason}")
        read = partial(read_file, path, follow=False)
        return Sample(below.origin(path), identity, read, landmarks)


def _header(path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        UserError: there are none, or one stands twice.
    """
    try:
        with _table(path) as (_, rows):
            names = next(rows, [])
    except csv.Error as fault:
        raise UserError(f"{path}: line 1: {fault}", fix="give a CSV file") from None
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"{path}: no line of names of columns, each another", fix="write one: path,identity"
        )
    return names


def _points(values: Mapping[str, str], names: Sequence[str]) -> Landmarks | None:
    """The landmarks of a line; None where there are no such columns, or nothing in them."""
    given = [values[name] for name in names]
    return landmarks_of(given) if any(given) else None


class Lines:
    """Lines of a file, none of them longer than memory should hold.

    A line that is too long raises ``csv.Error`` where it stands; iterating may go on behind it.

    Attributes:
        number: of the line given last, from 1.
    """

    limit = 1 << 18

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = piece = self._file.readline(self.limit)
        if not line:
            raise StopIteration
        self.number += 1
        while len(piece) == self.limit and not piece.endswith(("\n", "\r")):
            piece = self._file.readline(self.limit)
        if piece is not line:
            raise csv.Error(f"longer than {self.limit} characters")
        return line


@contextmanager
def _table(path: Path) -> Iterator[tuple[Lines, Iterator[list[str]]]]:
    """The lines of a file, and its rows, read from them."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with (
        opened(path) as (file, _),
        io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text,
    ):
        lines = Lines(text)
        yield lines, csv.reader(lines, delimiter=delimiter, strict=True)
