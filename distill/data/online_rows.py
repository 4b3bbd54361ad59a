"""Pairs of a pack of first images: what a reader does besides, to make the second ones.

A reader reads the first images, and those of other photographs where one is needed; here is which,
and what is made of them. All of it follows from (seed, epoch, place in the pack).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from distill.data.augment import Numbers
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
from distill.errors import UserError


class Drawn(NamedTuple):
    """What comes up for B pairs.

    Attributes:
        bits: kinds of the second image, (B,).
        partner: place of another photograph of the person, -1 where there is none, (B,).
        read: the same, and -1 also where it is not needed, (B,).
    """

    bits: Numbers
    partner: Numbers
    read: Numbers


@dataclass(frozen=True)
class OnlineRows:
    """How the second images of a run are made.

    Attributes:
        maker: of the second images.
        partners: other photographs of the same people.
        way_of: number of the way, as the pack lists them, by the bits of its kinds.
    """

    maker: SecondMaker
    partners: Partners
    way_of: Numbers

    @classmethod
    def of(cls, pack: Pack, seed: int) -> Self:
        """For a pack of first images, ready to be called by threads.

        Raises:
            UserError: kinds that do not exist, or people whose photographs are scattered.
        """
        manifest = pack.manifest
        _check_kinds(pack)
        partners = Partners(np.array(manifest.pairs_per_identity, np.int64))
        if manifest.pairs <= CHECKED_PAIRS:
            _check_people(pack, partners)
        way_of = np.full(1 << len(KINDS), -1, np.int64)
        way_of[[way_bits(way) for way in manifest.kinds]] = np.arange(len(manifest.kinds))
        options = SecondOptions.from_described(manifest.second_options)
        maker = SecondMaker(seed, manifest.kind_chances, options)
        maker.warm_up()
        return cls(maker, partners, way_of)

    def draw(self, keys: Keys) -> Drawn:
        """What comes up for each (epoch, pair) of ``keys``, (B, 2)."""
        epochs, ids = _columns(keys)
        bits = self.maker.draw(epochs, ids)
        partner = self.partners.of(self.maker.seed, epochs, ids)
        return Drawn(bits, partner, np.where(needs_partner(bits), partner, -1))

    def seconds(self, keys: Keys, drawn: Drawn, firsts: Firsts, others: Firsts) -> Images:
        """The second images, (B, S, S, 3); all that was read must be good."""
        out = np.empty_like(firsts.pixels)
        self.maker.make(
            *_columns(keys),
            drawn.bits,
            firsts.pixels,
            face_rows(firsts.faces),
            drawn.partner,
            others.pixels,
            face_rows(others.faces),
            out,
        )
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


def _check_people(pack: Pack, partners: Partners) -> None:
    """Refuses a small pack whose people are scattered; in large ones every row is looked at."""
    for shard, start in zip(pack.index.shards, pack.index.starts.tolist(), strict=False):
        ids = np.arange(start, start + len(shard))
        if (partners.label_of(ids) != shard.samples["label"]).any():
            raise UserError(
                f"{shard.path}: the photographs of a person lie apart, or not in the order of"
                " labels",
                fix="pack again with --layout singles",
            )
