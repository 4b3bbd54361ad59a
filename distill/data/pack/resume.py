"""Shards that are whole while their pack is not: found after a kill, checked, and replayed."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from distill.data.beton import Layout
from distill.data.beton_index import open_index
from distill.data.digests import file_sha256
from distill.data.manifest import ShardFacts
from distill.data.pack.tables import Table
from distill.files import disk_errors, write_whole

COLUMNS = ("pair", "identity", "kind", "first", "other", "how", "note")
"""Of pairs.csv."""


def _rows_name(number: int) -> str:
    return f".rows-{number:05d}.csv"


def _facts_name(number: int) -> str:
    return f".facts-{number:05d}.json"


class StoredPair(NamedTuple):
    """A pair of a finished shard.

    Attributes:
        images: its JPEGs.
        how: how the second one was made.
    """

    images: tuple[bytes, ...]
    how: str


def finished_shards(folder: Path) -> list[ShardFacts]:
    """The shards of an unfinished pack that are whole, from the first on; as their writer said."""
    found: list[ShardFacts] = []
    while (file := folder / _facts_name(len(found))).exists():
        try:
            found.append(ShardFacts.model_validate_json(file.read_bytes()))
        except ValidationError:
            break
    return found


def verified_shards(folder: Path) -> list[ShardFacts]:
    """Those of them whose bytes are still what they were; the rest is removed."""
    good: list[ShardFacts] = []
    for facts in finished_shards(folder):
        path = folder / facts.name
        if not path.exists() or file_sha256(path) != facts.sha256:
            break
        good.append(facts)
    for entry in folder.glob(".*.partial"):
        entry.unlink()
    known = {facts.name for facts in good} | {_facts_name(i) for i in range(len(good))}
    for pattern in ("*.beton", ".facts-*.json"):
        for entry in folder.glob(pattern):
            if entry.name not in known:
                entry.unlink()
    return good


def stored_pairs(
    folder: Path, shards: list[ShardFacts], layout: Layout, side: int
) -> Iterator[StoredPair]:
    """The pairs of finished shards, in order."""
    for number, facts in enumerate(shards):
        index = open_index(folder / facts.name, layout=layout, side=side)
        with (
            index.path.open("rb") as file,
            (folder / _rows_name(number)).open(newline="", encoding="utf-8") as table,
        ):
            for entries, row in zip(index.allocations, csv.reader(table), strict=True):
                images = (os.pread(file.fileno(), int(e["size"]), int(e["ptr"])) for e in entries)
                yield StoredPair(tuple(images), row[COLUMNS.index("how")])


class RowFiles:
    """The rows of pairs.csv, a file for each shard until the pack is whole.

    Args:
        folder: of the pack.
        named: what errors speak of.
        finished: how many shards are whole already.
    """

    def __init__(self, folder: Path, named: Path, finished: int) -> None:
        self._folder, self._named = folder, named
        self._number = self._whole = finished
        self._table: Table | None = None

    def add(self, *cells: str | int) -> None:
        """The row of the next pair."""
        if self._table is None:
            self._table = Table(self._folder / _rows_name(self._number), self._named)
        self._table.row(*cells)

    def turn(self) -> None:
        """A shard is full: the next row is of another."""
        self.close()
        self._number += 1

    def end(self, facts: ShardFacts) -> None:
        """The first shard of which this was not told is whole: it counts as finished."""
        text = facts.model_dump_json().encode()
        path = self._folder / _facts_name(self._whole)
        write_whole(path, text, named=self._named, alone=True)
        self._whole += 1

    def close(self) -> None:
        """Closes the open file."""
        if self._table is not None:
            self._table.close()
            self._table = None

    def join(self, path: Path) -> None:
        """Puts all rows into one table; those of each shard stay until the whole pack is done."""
        with Table(path, self._named, *COLUMNS):
            pass
        with disk_errors(self._named), path.open("ab") as joined:
            for number in range(self._number):
                with (self._folder / _rows_name(number)).open("rb") as part:
                    while chunk := part.read(1 << 20):
                        joined.write(chunk)
            joined.flush()
            os.fsync(joined.fileno())


def remove_what_only_a_resume_needs(folder: Path) -> None:
    """Leaves the folder of one pack as it will be.

    The last shard is the first of which nothing is known any more: what a kill in between leaves
    is still a row of finished shards from the first on.
    """
    for pattern in (".facts-*.json", ".rows-*.csv"):
        for entry in sorted(folder.glob(pattern), reverse=True):
            entry.unlink()
