"""Several shards as one: pairs are numbered through, in the order of the files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from distill.arrays import Numbers
from distill.data.beton import Layout
from distill.data.beton_index import BetonIndex


class Renumbering(NamedTuple):
    """New numbers for what each of several packs numbers from 0.

    Attributes:
        starts: where the numbers of each shard's pack begin in ``new``, (shards,).
        counts: how many its pack has, (shards,).
        new: of one pack after the other.
    """

    starts: Numbers
    counts: Numbers
    new: Numbers

    def of(self, shards: Numbers, old: Numbers) -> Numbers:
        """The new number of each old one in the pack of its shard, (B,); -1 where it has none."""
        known = (old >= 0) & (old < self.counts[shards])
        return np.where(known, self.new[np.where(known, self.starts[shards] + old, 0)], -1)


class Joined(NamedTuple):
    """What is to know of shards that are of several packs.

    Attributes:
        labels: classes by the labels of each pack.
        kinds: kinds of all by those of each pack.
        first_pairs: number of the first pair of each shard's pack, (shards,).
    """

    labels: Renumbering
    kinds: Renumbering
    first_pairs: Numbers


@dataclass(frozen=True)
class PackIndex:
    """Where the pairs of a pack, or of several, are. Nothing in it grows with their number.

    Attributes:
        shards: its files.
        classes: stored labels lie in [0, classes); of several packs, the most that one has.
        kinds: stored kinds lie in [0, kinds); likewise.
        joined: how stored numbers become those of all, where the shards are of several packs.
    """

    shards: tuple[BetonIndex, ...]
    classes: int
    kinds: int
    joined: Joined | None = None

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def side(self) -> int:
        """Height and width of the images, in pixels."""
        return self.shards[0].side

    @property
    def layout(self) -> Layout:
        """What a sample consists of."""
        return self.shards[0].layout

    @cached_property
    def starts(self) -> Numbers:
        """Number of the first pair of each shard, and of all pairs, (shards + 1,)."""
        return np.cumsum([0, *map(len, self.shards)], dtype=np.int64)

    def locate(self, ids: Numbers) -> Numbers:
        """Shard and row of each pair of ``ids``, (B,), as (B, 2) int64."""
        shard = np.searchsorted(self.starts, ids, side="right") - 1
        return np.stack([shard, ids - self.starts[shard]], axis=1)

    def shard_of(self, pair: int) -> tuple[BetonIndex, int]:
        """The shard that holds ``pair``, and the number that the pair has in its own pack."""
        shard = int(self.locate(np.array([pair], np.int64))[0, 0])
        first = int(self.joined.first_pairs[shard]) if self.joined is not None else 0
        return self.shards[shard], pair - first

    def renumbered(self, shards: Numbers, numbers: Numbers) -> Numbers:
        """Labels and kinds as they were stored, (B, 2), as those of all packs together.

        Args:
            shards: of each pair, (B,).
            numbers: label and kind of each, (B, 2).

        Returns:
            (B, 2); -1 where the pair's own pack has no such label or kind.
        """
        if self.joined is None:
            return numbers
        parts = zip((self.joined.labels, self.joined.kinds), numbers.T, strict=True)
        return np.stack([part.of(shards, column) for part, column in parts], axis=1)
