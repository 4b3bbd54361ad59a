"""The tables of a pack, `rejected.csv` and `pairs.csv`: any name survives them."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from distill.files import disk_errors


def as_text(name: str) -> str:
    """``name`` as valid Unicode: bytes of a file name that are no UTF-8 become ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Table:
    """A CSV file (RFC 4180: quotes doubled, line ends inside quotes kept), written row by row.

    Args:
        path: the file.
        named: what errors call it (the pack the user asked for).
        columns: its first row; none for a part of a table.

    Raises:
        UserError: the disk is full or not writable.
    """

    def __init__(self, path: Path, named: Path, *columns: str) -> None:
        self._named = named
        with disk_errors(named):
            self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if columns:
            self.row(*columns)

    def row(self, *cells: str | int) -> None:
        """Adds one row."""
        with disk_errors(self._named):
            self._writer.writerow([as_text(c) if isinstance(c, str) else c for c in cells])

    def copy(self, rows: Iterable[Sequence[str]]) -> None:
        """Adds rows of another such table, whose text is valid Unicode already."""
        with disk_errors(self._named):
            self._writer.writerows(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the file, durably; once is enough (Ctrl-C may come right after the first time)."""
        if self._file.closed:
            return
        with disk_errors(self._named):
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()


def filter_table(path: Path, columns: Sequence[str], goes: Callable[..., bool]) -> None:
    """Removes the rows whose cells in ``columns`` make ``goes`` true; pairs are numbered anew.

    Raises:
        UserError: the disk is full or not writable; the table is as it was.
    """
    if not path.exists():
        return
    unfinished = path.with_name(f".{path.name}.partial")
    with disk_errors(path):
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            with Table(unfinished, path, *header) as table:
                places = [header.index(name) for name in columns]
                left = (row for row in rows if row and not goes(*(row[at] for at in places)))
                table.copy(_numbered(left, header.index("pair")) if "pair" in header else left)
        unfinished.replace(path)


def _numbered(rows: Iterable[list[str]], place: int) -> Iterator[list[str]]:
    """The same with their numbers, from 0 on, in one of the cells."""
    for number, row in enumerate(rows):
        row[place] = str(number)
        yield row
