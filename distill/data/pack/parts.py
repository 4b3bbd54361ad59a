"""The second round of packing: planned pairs to a pack folder with its tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from distill.data.beton import LAYOUTS, LayoutName
from distill.data.contact_sheet import SheetPair, contact_sheet
from distill.data.faces import FACE_SIZE
from distill.data.manifest import ShardFacts
from distill.data.pack.resume import RowFiles, stored_pairs, verified_shards
from distill.data.pack.work import MAKERS, PairJpegs, Recipe
from distill.data.pack_writer import EncodedPair, ShardWriter, Tally, write_manifest
from distill.data.pairs import PairPlan, kinds_of
from distill.data.pairs_table import PAIRS_NAME
from distill.data.second.online import ways
from distill.data.workers import Team
from distill.files import disk_errors

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
        people: names, indexed by label.
        layout: what a sample consists of.
    """

    purpose: Literal["train", "evaluation"]
    folder: Path
    plans: Iterable[PairPlan]
    pairs: int
    photographs: int
    people: Sequence[str]
    layout: LayoutName = "pairs"


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
        kinds: chances of the processings; those alone come first in the pack's list.
    """

    def __init__(self, part: Part, named: Path, kinds: Mapping[str, float]) -> None:
        self._part, self._named, self._people = part, named, part.people
        self._chances = kinds
        self._kinds = Kinds(ways(kinds) if part.layout == "singles" else kinds)
        self._shown: dict[str, dict[str, SheetPair]] = {}  # by kind, and then by person

    def write(
        self,
        team: Team,
        recipe: Recipe,
        advance: Callable[[], None],
        *,
        shard_bytes: int,
        **description: Any,
    ) -> None:
        """Makes the folder; shards that an earlier packer finished are checked and kept.

        Args:
            team: does the work.
            recipe: how.
            advance: told of each pair.
            shard_bytes: size at which a new shard is begun, in bytes.
            description: fields of the manifest that do not follow from the pairs.

        Raises:
            UserError: the disk is full, or a worker failed.
        """
        part = self._part
        part.folder.mkdir(exist_ok=True)
        shards, tally = self._store(team, recipe, advance, shard_bytes)
        with disk_errors(self._named):
            contact_sheet(self._pairs_to_show(), part.folder / SHEET_NAME)
        write_manifest(
            part.folder,
            shards,
            tally,
            identities=self._people,
            kinds=self._kinds.names,
            named=self._named,
            purpose=part.purpose,
            photographs=part.photographs,
            **(self._online(recipe) if part.layout == "singles" else {}),
            **description,
        )

    def _store(
        self, team: Team, recipe: Recipe, advance: Callable[[], None], shard_bytes: int
    ) -> tuple[list[ShardFacts], Tally]:
        """Makes the shards and the table of pairs; what the manifest says of them."""
        part, tally = self._part, Tally()
        finished = verified_shards(part.folder)
        rows = RowFiles(part.folder, self._named, len(finished))
        left = sum(shard.pairs for shard in finished)
        made = self._made(team, recipe, finished)
        with (
            closing(rows),
            ShardWriter(
                part.folder,
                part.pairs,
                layout=LAYOUTS[part.layout],
                shard_bytes=shard_bytes,
                named=self._named,
                finished=finished,
                at_full=rows.turn,
                at_end=rows.end,
            ) as writer,
        ):
            for place, (plan, jpegs) in enumerate(made):
                pair, row = self._seen(plan, jpegs)
                tally.count(pair)
                if place >= left:
                    rows.add(place, *row)
                    writer.append(pair)
                advance()
        rows.join(part.folder / PAIRS_NAME)
        return writer.facts, tally

    def _online(self, recipe: Recipe) -> dict[str, Any]:
        """Fields of the manifest by which second images are made while training."""
        return {
            "second": "online",
            "kind_chances": dict(self._chances),
            "second_options": recipe.options.described(),
        }

    def _made(
        self, team: Team, recipe: Recipe, finished: list[ShardFacts]
    ) -> Iterator[tuple[PairPlan, PairJpegs]]:
        """All pairs in order: those of finished shards as they are, then the new ones."""
        part, plans = self._part, iter(self._part.plans)
        for stored in stored_pairs(part.folder, finished, LAYOUTS[part.layout], FACE_SIZE):
            first, second = (*stored.images, b"")[:2]
            plan = next(plans)
            kinds = kinds_of(plan, recipe.seed, recipe.chances)
            yield plan, PairJpegs(first, second, kinds, stored.how)
        yield from team.do(MAKERS[part.layout], plans, recipe, name=lambda plan: plan.first.origin)

    def _pairs_to_show(self) -> list[SheetPair]:
        """Pairs made by one processing alone; where there are none, those made by several."""
        single = [name for name in self._shown if "+" not in name]
        names = single or list(self._shown)[:SHEET_PAIRS]
        return [pair for name in names for pair in self._shown[name].values()]

    def _seen(self, plan: PairPlan, jpegs: PairJpegs) -> tuple[EncodedPair, tuple[str, ...]]:
        """A pair with its line for the table; a few are kept for the sheet."""
        if self._part.layout == "singles":
            return self._single(plan, jpegs)
        kind = self._kinds.number(jpegs.kinds)
        name, first = self._kinds.names[kind], plan.first
        other = plan.other.origin if plan.other and "other" in jpegs.how else ""
        identity = self._people[first.label]
        shown = self._shown.setdefault(name, {})
        if len(shown) < SHEET_PAIRS:
            shown.setdefault(identity, SheetPair(name, jpegs.first, jpegs.second, jpegs.how))
        pair = EncodedPair(jpegs.first, jpegs.second, first.label, kind)
        return pair, (identity, name, first.origin, other, jpegs.how, first.note)

    def _single(self, plan: PairPlan, jpegs: PairJpegs) -> tuple[EncodedPair, tuple[str, ...]]:
        """A photograph alone with its line; of second images there is nothing to tell or show."""
        photo = plan.first
        single = EncodedPair(jpegs.first, b"", photo.label, 0, jpegs.face)
        return single, (self._people[photo.label], "online", photo.origin, "", "", photo.note)
