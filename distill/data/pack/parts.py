"""The second round of packing: planned pairs to a pack folder with its tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from distill.data.contact_sheet import SheetPair, contact_sheet
from distill.data.pack.tables import Table
from distill.data.pack.work import PairJpegs, Recipe, make_pair
from distill.data.pack.workers import Team
from distill.data.pack_writer import EncodedPair, write_pack
from distill.data.pairs import PairPlan
from distill.files import disk_errors

PAIRS_NAME = "pairs.csv"
SHEET_NAME = "contact_sheet.png"
SHEET_PAIRS = 6
"""Pairs of each kind on the contact sheet, each of another person."""


class Part(NamedTuple):
    """One pack to be made.

    Attributes:
        purpose: what for.
        folder: where to.
        plans: its pairs in order.
        pairs: how many there are.
        photographs: of how many photographs.
    """

    purpose: Literal["train", "evaluation"]
    folder: Path
    plans: Iterable[PairPlan]
    pairs: int
    photographs: int


class Kinds:
    """Names of ways to make a second image, numbered as they come up; ``pose+blur`` is one way."""

    def __init__(self, single: Iterable[str]) -> None:
        self.names = list(single)
        self._numbers = {name: i for i, name in enumerate(self.names)}

    def number(self, kinds: Sequence[str]) -> int:
        """The number of a combination."""
        name = "+".join(kinds)
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


class PartWriter:
    """Makes one part.

    Args:
        part: what to make.
        named: the pack as the user knows it, for errors.
        people: names, indexed by label.
        kinds: single ways, first in the pack's list.
    """

    def __init__(
        self, part: Part, named: Path, people: Sequence[str], kinds: Iterable[str]
    ) -> None:
        self._part, self._named, self._people = part, named, people
        self._kinds = Kinds(kinds)
        self._shown: dict[str, dict[str, SheetPair]] = {}  # by kind, and then by person

    def write(
        self, team: Team, recipe: Recipe, advance: Callable[[], None], **description: Any
    ) -> None:
        """Makes the folder.

        Args:
            team: does the work.
            recipe: how.
            advance: told of each pair.
            description: fields of the manifest that do not follow from the pairs.

        Raises:
            UserError: the disk is full, or a worker failed.
        """
        part = self._part
        part.folder.mkdir(exist_ok=True)
        columns = ("pair", "identity", "kind", "first", "other", "how", "note")
        with Table(part.folder / PAIRS_NAME, self._named, *columns) as table:
            made = team.do(make_pair, part.plans, recipe, name=lambda plan: plan.first.origin)
            write_pack(
                part.folder,
                self._stored(made, table, advance),
                part.pairs,
                identities=self._people,
                kinds=self._kinds.names,
                named=self._named,
                purpose=part.purpose,
                photographs=part.photographs,
                **description,
            )
        with disk_errors(self._named):
            contact_sheet(self._pairs_to_show(), part.folder / SHEET_NAME)

    def _pairs_to_show(self) -> list[SheetPair]:
        """Pairs made by one processing alone; where there are none, those made by several."""
        single = [name for name in self._shown if "+" not in name]
        names = single or list(self._shown)[:SHEET_PAIRS]
        return [pair for name in names for pair in self._shown[name].values()]

    def _stored(
        self,
        made: Iterator[tuple[PairPlan, PairJpegs]],
        table: Table,
        advance: Callable[[], None],
    ) -> Iterator[EncodedPair]:
        """Pairs in order; each has its line in the table, a few are kept for the sheet."""
        for place, (plan, jpegs) in enumerate(made):
            kind = self._kinds.number(plan.kinds)
            name, first = self._kinds.names[kind], plan.first
            other = plan.other.origin if plan.other and "other" in jpegs.how else ""
            identity = self._people[first.label]
            table.row(place, identity, name, first.origin, other, jpegs.how, first.note)
            shown = self._shown.setdefault(name, {})
            if len(shown) < SHEET_PAIRS:
                shown.setdefault(identity, SheetPair(name, jpegs.first, jpegs.second, jpegs.how))
            yield EncodedPair(jpegs.first, jpegs.second, first.label, kind)
            advance()
