"""Pairs of a pack of first images: what a reader does besides, to make the second ones.

A reader reads the first images, and those of other photographs where one is needed; here is which,
and what is made of them. All of it follows from (seed, epoch, place in the pack).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.manifest import CHECKED_PAIRS, MANIFEST_NAME, Pack
from distill.data.order import Keys
from distill.data.pack_index import PackIndex
from distill.data.reading import Firsts, corrupt
from distill.data.second import KINDS, SecondOptions
from distill.data.second.online import (
    Images,
    Partners,
    SecondMaker,
    face_rows,
    needs_partner,
    way_bits,
    ways,
)
from distill.data.training_set import TrainingSet
from distill.errors import UserError


class Drawn(NamedTuple):
    """What comes up for B pairs.

    Attributes:
        bits: kinds of the second image, (B,).
        kinds: the same as the number of the way, (B,).
        partner: place of another photograph of the person, -1 where there is none, (B,).
        read: the same, and -1 also where it is not needed, (B,).
    """

    bits: Numbers
    kinds: Numbers
    partner: Numbers
    read: Numbers


class Recipe(NamedTuple):
    """How second images are made of the photographs of a pack.

    Attributes:
        maker: of the second images.
        way_of: number of the way, among those of the whole set, by the bits of its kinds.
    """

    maker: SecondMaker
    way_of: Numbers


@dataclass(frozen=True)
class OnlineRows:
    """How the second images of a run are made.

    Attributes:
        recipes: those of all packs; most often one.
        recipe_of: which of them, by the number of the first pair that it is for: (starts, numbers).
        partners: other photographs of the same people.
        seed: of the run.
    """

    recipes: list[Recipe]
    recipe_of: tuple[Numbers, Numbers]
    partners: Partners
    seed: int

    @classmethod
    def of(cls, train: TrainingSet, seed: int) -> Self:
        """For packs of first images, ready to be called by threads.

        Raises:
            UserError: kinds that do not exist, or people whose photographs are scattered.
        """
        for pack in train.packs:
            _check_kinds(pack)
        partners = Partners(
            np.concatenate([pack.manifest.pairs_per_identity for pack in train.packs]),
            np.concatenate(train.people.classes),
            train.gaps,
        )
        if len(train.index) <= CHECKED_PAIRS:
            _check_people(train.index, partners)
        recipes, numbers = _recipes(train, seed)
        sizes = [pack.manifest.pairs for pack in train.packs]
        return cls(recipes, (np.cumsum([0, *sizes[:-1]]), np.array(numbers)), partners, seed)

    def draw(self, keys: Keys) -> Drawn:
        """What comes up for each (epoch, pair) of ``keys``, (B, 2)."""
        epochs, ids = _columns(keys)
        bits, kinds = np.empty_like(ids), np.empty_like(ids)
        for recipe, rows in self._by_recipe(ids):
            bits[rows] = recipe.maker.draw(epochs[rows], ids[rows])
            kinds[rows] = recipe.way_of[bits[rows]]
        partner = self.partners.of(self.seed, epochs, ids)
        return Drawn(bits, kinds, partner, np.where(needs_partner(bits), partner, -1))

    def _by_recipe(self, ids: Numbers) -> Iterator[tuple[Recipe, npt.NDArray[np.bool_] | slice]]:
        """Each recipe with the rows that it is for."""
        if len(self.recipes) == 1:
            yield self.recipes[0], slice(None)
            return
        starts, numbers = self.recipe_of
        mine = numbers[np.searchsorted(starts, ids, side="right") - 1]
        for number, recipe in enumerate(self.recipes):
            if (rows := mine == number).any():
                yield recipe, rows

    def seconds(self, keys: Keys, drawn: Drawn, firsts: Firsts, others: Firsts) -> Images:
        """The second images, (B, S, S, 3); all that was read must be good."""
        out = np.empty_like(firsts.pixels)
        epochs, ids = _columns(keys)
        faces, other_faces = face_rows(firsts.faces), face_rows(others.faces)
        for recipe, rows in self._by_recipe(ids):
            made = out if isinstance(rows, slice) else np.empty_like(out[rows])
            recipe.maker.make(
                epochs[rows],
                ids[rows],
                drawn.bits[rows],
                firsts.pixels[rows],
                faces[rows],
                drawn.partner[rows],
                others.pixels[rows],
                other_faces[rows],
                made,
            )
            if made is not out:
                out[rows] = made
        return out

    def strangers(self, ids: Numbers, labels: Numbers) -> npt.NDArray[np.bool_]:
        """Which rows carry another label than their place in the pack says; (B,).

        What is not read, with an id below 0, never counts.
        """
        return np.asarray((ids >= 0) & (self.partners.label_of(ids) != labels))

    def raise_if_corrupt(
        self, index: PackIndex, keys: Keys, statuses: npt.NDArray[np.uint8]
    ) -> None:
        """Raises for the first image whose status is not good, of a photograph or its partner.

        Args:
            index: of the pack.
            keys: epoch and pair of each row, (B, 2).
            statuses: of its photograph and of the other one that it needed, (B, 2).
        """
        if statuses.any():
            row, which = np.argwhere(statuses)[0].tolist()
            pair = self.draw(keys[row : row + 1]).read[0] if which else keys[row, 1]
            raise corrupt(index, int(pair), 0, int(statuses[row, which]))


def _columns(keys: Keys) -> tuple[Numbers, Numbers]:
    """Epochs and pairs, each contiguous as compiled code wants them."""
    return np.ascontiguousarray(keys[:, 0]), np.ascontiguousarray(keys[:, 1])


def _check_kinds(pack: Pack) -> None:
    """Refuses a manifest whose kinds no loader can draw."""
    manifest = pack.manifest
    chances: dict[str, Any] = manifest.kind_chances
    known = bool(chances) and set(chances) <= set(KINDS)
    if not (known and all(0.0 < p <= 1.0 for p in chances.values())):
        raise UserError(
            f"{pack.path / MANIFEST_NAME}: kind_chances {chances}",
            fix=f"give chances above 0 and at most 1 of {', '.join(KINDS)}, or pack again",
        )
    if manifest.kinds != ways(chances):
        raise UserError(
            f"{pack.path / MANIFEST_NAME}: kinds are not those that kind_chances can give",
            fix="pack again",
        )


def _recipes(train: TrainingSet, seed: int) -> tuple[list[Recipe], list[int]]:
    """Ways to make second images that differ, and the number of that of each pack."""
    recipes: list[Recipe] = []
    numbers: list[int] = []
    for pack, kinds in zip(train.packs, train.kind_numbers(), strict=True):
        manifest = pack.manifest
        options = SecondOptions.from_described(manifest.second_options)
        recipe = Recipe(
            SecondMaker(seed, manifest.kind_chances, options), _way_of(manifest.kinds, kinds)
        )
        makers = [made.maker for made in recipes]
        if recipe.maker not in makers:
            recipe.maker.warm_up()
            recipes.append(recipe)
            makers.append(recipe.maker)
        numbers.append(makers.index(recipe.maker))
    return recipes, numbers


def _way_of(names: list[str], numbers: Numbers) -> Numbers:
    """The number of each way by the bits of its kinds."""
    way_of = np.full(1 << len(KINDS), -1, np.int64)
    way_of[[way_bits(way) for way in names]] = numbers
    return way_of


def _check_people(index: PackIndex, partners: Partners) -> None:
    """Refuses small packs whose people are scattered; in large ones every row is looked at."""
    for number, (shard, start) in enumerate(zip(index.shards, index.starts.tolist(), strict=False)):
        ids = np.arange(start, start + len(shard))
        stored = np.stack([shard.samples["label"], shard.samples["kind"]], axis=1)
        labels = index.renumbered(np.full(len(ids), number), stored)[:, 0]
        if (partners.label_of(ids) != labels).any():
            raise UserError(
                f"{shard.path}: the photographs of a person lie apart, or not in the order of"
                " labels",
                fix="pack again with --layout singles",
            )
