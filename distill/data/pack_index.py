"""Several shards as one: pairs are numbered through, in the order of the files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from distill.data.beton import Layout
from distill.data.beton_index import BetonIndex

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackIndex:
    """Where the pairs of a pack are. Nothing in it grows with their number.

    Attributes:
        shards: its files.
        classes: identities C; labels lie in [0, C).
        kinds: length of the pack's list of kinds.
    """

    shards: tuple[BetonIndex, ...]
    classes: int
    kinds: int

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
        """The shard that holds ``pair``, and its row there."""
        shard, row = self.locate(np.array([pair], np.int64))[0].tolist()
        return self.shards[shard], row
