"""The table of a pack's pairs, `pairs.csv`: which photographs each was made from."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.data.manifest import Pack

PAIRS_NAME = "pairs.csv"


class PairRow(NamedTuple):
    """A pair.

    Attributes:
        identity: name of its person.
        first: name of the photograph that is its first image.
        other: of the one besides it that its second image was made from; empty where there is none.
    """

    identity: str
    first: str
    other: str


def has_table(pack: Pack) -> bool:
    """Whether the pack has the table (a small pack made by `write_pack` has none)."""
    return (pack.path / PAIRS_NAME).exists()


def pair_rows(pack: Pack) -> Iterator[PairRow]:
    """The rows of the table, in the order of the pairs.

    Raises:
        UserError: it cannot be read, or (at its end) is of another pack.
    """
    path, count = pack.path / PAIRS_NAME, 0
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.reader(file, strict=True)  # its rows as dictionaries take twice as long
            header = next(table, [])
            if missing := [name for name in PairRow._fields if name not in header]:
                raise UserError(
                    f"{path}: no column {missing[0]!r}",
                    fix="it is of another program, or of a pack of an old release: pack again",
                )
            places = [header.index(name) for name in PairRow._fields]
            cells, enough = itemgetter(*places), max(places)
            for row in filter(None, table):
                if len(row) <= enough:
                    raise csv.Error(f"line {table.line_num} is cut short")
                yield PairRow._make(cells(row))
                count += 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})", fix="pack again") from error
    if count != pack.manifest.pairs:
        raise UserError(
            f"{path}: {count} rows for {pack.manifest.pairs} pairs",
            fix="it is of another pack: pack again",
        )
