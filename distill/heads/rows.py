"""Which rows of a head stand on which rank, and what they are at first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

ELEMENTS_DRAWN_AT_ONCE = 1 << 24
"""64 MiB of float32; part of what a seed means: another number gives large heads other weights."""


class ClassRanges(NamedTuple):
    """The classes that each of W ranks owns: neighbours, in the order of the ranks.

    Attributes:
        bounds: first class of each rank, and the number of all classes; W + 1 numbers.
        rank: this rank among all ranks of the job.
    """

    bounds: tuple[int, ...]
    rank: int

    @classmethod
    def even(cls, classes: int, rank: int, world_size: int) -> ClassRanges:
        """``classes`` shared out so that no two ranks differ by more than one."""
        bounds = tuple(r * classes // world_size for r in range(world_size + 1))
        return cls(bounds, rank)

    @property
    def mine(self) -> range:
        """The classes of this rank."""
        return range(*self.bounds[self.rank : self.rank + 2])

    @property
    def classes(self) -> int:
        """Classes of all ranks, C."""
        return self.bounds[-1]

    @property
    def world_size(self) -> int:
        """Number of ranks, W."""
        return len(self.bounds) - 1


def draw_rows(
    fill: Callable[[torch.Tensor], object], rows: int, width: int, keep: range
) -> torch.Tensor:
    """The rows ``keep`` of a (rows, width) float32 matrix whose elements ``fill`` draws in place.

    All of it is drawn from torch's generator, whoever keeps what: so a head has the same weights
    wherever its rows stand, and the generator the same state afterwards. It is drawn a block at a
    time, and no more than a block is ever there of rows that are not kept.
    """
    kept = torch.empty(len(keep), width)
    step = max(ELEMENTS_DRAWN_AT_ONCE // width, 1)
    for start in range(0, rows, step):
        block = torch.empty(min(step, rows - start), width)
        fill(block)
        first, stop = max(start, keep.start), min(start + len(block), keep.stop)
        if first < stop:
            kept[first - keep.start : stop - keep.start] = block[first - start : stop - start]
    return kept
