"""The order in which pairs are trained on: a pure function of (seed, epoch, position).

Epochs follow each other without a gap: place P of a run is pair P mod n of epoch P div n. Global
batches cut that line into equal pieces, so the one at the end of an epoch goes on into the next;
every pair comes exactly once an epoch, on any number of ranks, none is left out and none is padded.
Of each global batch, rank r of W takes every W-th place, starting at the r-th.

No list of pairs exists: which pair stands at a place is computed. So opening a set of any size
takes no time and no memory, and a run may go on from any place, on another number of ranks. Pairs
that are left out (`distill.data.excluded`) are gaps in the numbers: the n others are ordered as a
set of n, and each keeps its own number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.batch import OrderState
from distill.data.gaps import NO_GAPS, Gaps
from distill.data.mixing import GOLDEN, mixed
from distill.errors import UserError

Indices = Numbers
Keys = Numbers
"""Epoch and pair of each row of a batch, (B, 2)."""

_ROUNDS = 24
_PLACES_AT_ONCE = 8192


def permuted(places: Indices, n: int, *key: int) -> Indices:
    """Where a permutation of 0 .. n - 1, chosen by ``key``, sends ``places``.

    A Feistel network over the smallest power of two that holds n, walked until it comes out below n
    (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). Two unequal halves
    and 24 rounds as in Mitchell et al., "Bandwidth-optimal random shuffling for GPUs", ACM TOPC
    2022; the round function is the finaliser of SplitMix64.

    Args:
        places: (m,) int64 in [0, n).
        n: size of the set.
        key: numbers that choose the permutation.

    Returns:
        (m,) int64 in [0, n).
    """
    keys = _round_keys(key)
    found = _shuffled(places.astype(np.uint64), n, keys)
    while (outside := np.flatnonzero(found >= n)).size:
        found[outside] = _shuffled(found[outside], n, keys)
    return found.astype(np.int64)


def _round_keys(key: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    state = np.zeros(1, np.uint64)
    for part in key:
        state = mixed(mixed(state + GOLDEN) ^ np.uint64(part % 2**64))
    return mixed(state + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * GOLDEN)


def _shuffled(
    x: npt.NDArray[np.uint64], n: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """One pass through the network over 0 .. 2^b - 1, b the bits of n - 1 (two at least)."""
    bits = max((n - 1).bit_length(), 2)
    left_bits, right_bits = bits // 2, bits - bits // 2
    left, right = x >> np.uint64(right_bits), x & np.uint64((1 << right_bits) - 1)
    for key in keys:
        mask = np.uint64((1 << left_bits) - 1)
        left, right = right, left ^ (mixed(right ^ key) & mask)
        left_bits, right_bits = right_bits, left_bits
    return left << np.uint64(right_bits) | right


class Blocks(NamedTuple):
    """How much of a set is shuffled at a time, where not all of it.

    Attributes:
        pairs: pairs of a block; they lie side by side on disk.
        window: blocks that are mixed with each other.
    """

    pairs: int
    window: int


class Order:
    """The order of one set of pairs.

    Args:
        seed: of the run.
        n: pairs in the set, without those left out.
        blocks: None shuffles all pairs. Else blocks are shuffled, and then the pairs of each
            window of blocks: what is read at a time lies together, and fits into memory.
        gaps: pairs that are left out.
    """

    def __init__(
        self, seed: int, n: int, blocks: Blocks | None = None, gaps: Gaps = NO_GAPS
    ) -> None:
        assert n > 0
        self.seed, self.n, self.blocks, self.gaps = seed, n, blocks, gaps
        self._plans: dict[int, BlockPlan] = {}

    def ids(self, epoch: int, places: Indices) -> Indices:
        """The pairs at ``places``, (m,) in [0, n), of one epoch."""
        if self.blocks is None:
            return self.gaps.pairs(permuted(places, self.n, self.seed, epoch))
        return self.gaps.pairs(self.plan(epoch).ids(places))

    def plan(self, epoch: int) -> BlockPlan:
        """The blocks of ``epoch``; of two epochs, since one is begun as another ends."""
        assert self.blocks is not None
        if epoch not in self._plans:
            self._plans = {e: p for e, p in self._plans.items() if abs(e - epoch) == 1}
            self._plans[epoch] = BlockPlan(self.seed, epoch, self.n, self.blocks)
        return self._plans[epoch]

    def keys(self, places: Indices) -> Keys:
        """Epoch and pair of each place of the whole run, (m, 2)."""
        epochs, within = np.divmod(places, self.n)
        found = np.empty((len(places), 2), np.int64)
        found[:, 0] = epochs
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            found[rows, 1] = self.ids(int(epoch), within[rows])
        return found


class BlockPlan:
    """One epoch read in blocks.

    Attributes:
        order: blocks as they are read, (blocks,).
        ends: place at which each of them ends, (blocks,).
    """

    def __init__(self, seed: int, epoch: int, n: int, blocks: Blocks) -> None:
        self._key, self._n, self._blocks = (seed, epoch), n, blocks
        count = -(-n // blocks.pairs)
        self.order = permuted(np.arange(count), count, seed, epoch, 1)
        lengths = np.minimum(blocks.pairs, n - self.order * blocks.pairs)
        self.ends = np.cumsum(lengths)

    def windows(self) -> int:
        """How many windows there are."""
        return -(-len(self.order) // self._blocks.window)

    def window_at(self, places: Indices) -> Indices:
        """The window of each place."""
        return np.searchsorted(self.ends, places, side="right") // self._blocks.window

    def members(self, window: int) -> Indices:
        """Blocks of a window."""
        return self.order[window * self._blocks.window : (window + 1) * self._blocks.window]

    def ids(self, places: Indices) -> Indices:
        """Numbers of the pairs at ``places``, among those that are not left out."""
        windows = self.window_at(places)
        found = np.empty_like(places)
        for window in np.unique(windows):
            rows = windows == window
            found[rows] = self._in_window(int(window), places[rows])
        return found

    def _in_window(self, window: int, places: Indices) -> Indices:
        first = window * self._blocks.window
        last = min(first + self._blocks.window, len(self.order)) - 1
        start = int(self.ends[first - 1]) if first else 0
        size = int(self.ends[last]) - start
        mixed_places = start + permuted(places - start, size, *self._key, 2, window)
        block = np.searchsorted(self.ends, mixed_places, side="right")
        before = np.where(block > 0, self.ends[block - 1], 0)
        return self.order[block] * self._blocks.pairs + mixed_places - before


class Share(NamedTuple):
    """The part of all work that one of W ranks does.

    Attributes:
        rank: 0 .. world_size - 1.
        world_size: ranks W.
    """

    rank: int
    world_size: int


class Line(NamedTuple):
    """The places of a run that one rank works through, from a state on and without end.

    Attributes:
        order: of the pairs.
        start: the state before the first of them.
        share: the rank.
        batch: pairs of one batch of this rank.
    """

    order: Order
    start: OrderState
    share: Share
    batch: int

    def batches(self) -> Iterator[Keys]:
        """Epoch and pair of each row, (B, 2), batch by batch, for ever."""
        at_once = min(_PLACES_AT_ONCE, self.order.n // self.share.world_size)
        per_round = max(at_once // self.batch, 1) * self.batch
        steps = np.arange(per_round, dtype=np.int64) * self.share.world_size
        place = self._first_place() + self.share.rank
        while True:
            keys = self.order.keys(place + steps)
            yield from (keys[i : i + self.batch] for i in range(0, per_round, self.batch))
            place += per_round * self.share.world_size

    def span(self, number: int) -> tuple[int, int]:
        """First and last place of all ranks' batches of that number, counted from 0."""
        size = self.batch * self.share.world_size
        first = self._first_place() + number * size
        return first, first + size - 1

    def _first_place(self) -> int:
        return self.start.epoch * self.order.n + self.start.consumed

    def state_after(self, batches: int) -> OrderState:
        """The state after so many batches of this rank (and of every other)."""
        done = batches * self.batch * self.share.world_size
        return OrderState(*divmod(self._first_place() + done, self.order.n))


def evaluation_slice(n: int, share: Share) -> Indices:
    """Pairs that one rank evaluates, in order; over all ranks each of ``n`` exactly once.

    Ranks get contiguous runs whose lengths differ by at most one.
    """
    assert 0 <= share.rank < share.world_size
    start, stop = (n * r // share.world_size for r in (share.rank, share.rank + 1))
    return np.arange(start, stop, dtype=np.int64)


def check_global_batch(n: int, global_batch: int, pack: str) -> None:
    """Refuses a pack that cannot fill one global batch.

    Raises:
        UserError: naming both numbers.
    """
    if n < global_batch:
        raise UserError(
            f"{pack}: {n} pairs do not fill one global batch of {global_batch}",
            fix=f"set train.global_batch_pairs to at most {n}, or pack more images",
        )


def steps_of(epochs: int, n: int, global_batch: int, seen: int = 0) -> int:
    """Optimizer steps that see every pair ``epochs`` times; the last may begin one epoch more.

    Args:
        epochs: passes over the set.
        n: pairs in the set.
        global_batch: pairs of a step.
        seen: places that are behind already, in steps of whatever size.
    """
    return -(min(seen - epochs * n, 0) // global_batch)
