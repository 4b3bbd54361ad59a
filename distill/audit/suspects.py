"""The list of photographs that are far from their identity's dominant centre, ready to exclude."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.arrays import Numbers
from distill.audit.votes import Rows
from distill.data.excluded import ALSO_SEPARATOR, pack_key
from distill.data.loader import pairs_per_photograph
from distill.data.manifest import Pack
from distill.data.pack.tables import Table
from distill.data.pairs_table import PairRow, has_table, pair_rows

COLUMNS = (
    "pack",
    "pair",
    "also",
    "photograph",
    "identity",
    "cosine",
    "sub_centre",
    "nearest",
    "nearest_cosine",
)


TOLD_AT_ONCE = 1 << 16
"""Lines of the table after which it is told how far the reading is."""


class Suspect(NamedTuple):
    """A photograph that is far from the dominant centre of its identity.

    Attributes:
        pair: its first pair.
        person: its identity's class.
        cosine: to the dominant centre.
        sub_centre: nearest to it, of its identity's.
        nearest: class of the nearest other identity.
        nearest_cosine: to that one's nearest sub-centre.
    """

    pair: int
    person: int
    cosine: float
    sub_centre: int
    nearest: int
    nearest_cosine: float


class Named(NamedTuple):
    """A suspect as the pack knows it.

    Attributes:
        suspect: the numbers.
        photograph: its name where it was packed from; empty where the pack has no table.
        also: pairs besides its first that show it, or a second image made from it.
    """

    suspect: Suspect
    photograph: str
    also: list[int]


def suspects(parts: Iterable[Rows]) -> Iterator[Suspect]:
    """Rows of `FAR`, in the order of their pairs, as suspects."""
    for part in parts:
        columns = (part[name].tolist() for name in part.dtype.names or ())
        yield from map(Suspect, *columns)


def named(
    found: Iterator[Suspect],
    pack: Pack,
    advance: Callable[[int], None] = lambda pairs: None,
) -> Iterator[Named]:
    """The same with their names, and the pairs that have to go with them.

    The table is read once, beside them; a person's lines lie together in it. ``advance`` is told
    how many lines have been read.

    Raises:
        UserError: the table cannot be read, or is of another pack.
    """
    if not has_table(pack):
        times = pairs_per_photograph(pack)
        for one in found:
            yield Named(one, "", list(range(one.pair + 1, one.pair + times)))
        return
    following, first, told = next(found, None), 0, 0
    for _, group in groupby(pair_rows(pack), itemgetter(0)):  # the identity
        lines = list(group)
        own: list[Suspect] = []
        while following is not None and following.pair < first + len(lines):
            own.append(following)
            following = next(found, None)
        if own:
            yield from _of_person(own, lines, first)
        first += len(lines)
        if first - told >= TOLD_AT_ONCE:
            advance(first - told)
            told = first
    advance(first - told)


def _of_person(own: list[Suspect], lines: list[PairRow], first: int) -> Iterator[Named]:
    """Suspects among a person's pairs, which are numbered from ``first`` on."""
    concerned: dict[str, list[int]] = {lines[one.pair - first].first: [] for one in own}
    for pair, row in enumerate(lines, first):
        for name in {row.first, row.other} & concerned.keys():
            concerned[name].append(pair)
    for one in own:
        name = lines[one.pair - first].first
        yield Named(one, name, [pair for pair in concerned[name] if pair != one.pair])


def write_suspects(
    found: Iterable[Named], path: Path, named_path: Path, pack: Pack, identities: list[str]
) -> Numbers:
    """Write the list; how many there are of each class, (C,).

    Args:
        found: in the order of their pairs.
        path: the file to write.
        named_path: what errors call it.
        pack: whose photographs they are.
        identities: names of the C classes.
    """
    counts, key = np.zeros(len(identities), np.int64), pack_key(pack)
    with Table(path, named_path, *COLUMNS) as table:
        for one, photograph, also in found:
            counts[one.person] += 1
            table.row(
                key,
                one.pair,
                ALSO_SEPARATOR.join(map(str, also)),
                photograph,
                identities[one.person],
                f"{one.cosine:.4f}",
                one.sub_centre,
                identities[one.nearest] if one.nearest >= 0 else "",
                f"{one.nearest_cosine:.4f}",
            )
    return counts
