"""The order in which pairs are trained on: a pure function of (seed, epoch, position).

An epoch is one permutation of the pack. It is used up in GLOBAL batches; of each, rank r of W takes
every W-th pair, starting at the r-th. So a place in the epoch is one number, the pairs consumed by
all ranks, and a run may go on from it on another number of ranks. What does not fill a global batch
at the end of an epoch is left out of that epoch, a different few pairs each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distill.data.batch import OrderState
from distill.errors import UserError

Indices = npt.NDArray[np.int64]


def permutation(seed: int, epoch: int, n: int) -> Indices:
    """The order of ``n`` pairs in ``epoch``, (n,) int64, each exactly once.

    A sort of the raw output of Philox (Salmon et al., SC 2011) keyed by (seed, epoch): numpy
    guarantees that raw stream for ever, but not the stream behind `Generator.permutation`.
    """
    raw = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64)).random_raw(n)
    return np.argsort(raw, kind="stable")


class Share(NamedTuple):
    """The part of all work that one of W ranks does.

    Attributes:
        rank: 0 .. world_size - 1.
        world_size: ranks W.
    """

    rank: int
    world_size: int


def rank_slice(order: Indices, consumed: int, share: Share, global_batch: int) -> Indices:
    """What is left of an epoch for one rank: whole global batches from ``consumed`` on.

    Args:
        order: the epoch's permutation, (n,).
        consumed: pairs of it used already, over all ranks.
        share: the rank asking.
        global_batch: pairs of one optimizer step over all ranks; a multiple of W.

    Returns:
        pairs of this rank in the order it uses them; the same number for every rank.
    """
    assert 0 <= share.rank < share.world_size and global_batch % share.world_size == 0
    usable = usable_pairs(len(order) - consumed, global_batch)
    return order[consumed + share.rank : consumed + usable : share.world_size]


def usable_pairs(n: int, global_batch: int) -> int:
    """The part of ``n`` pairs that fills whole global batches."""
    return max(n, 0) // global_batch * global_batch


class EpochPlan(NamedTuple):
    """What one rank reads of one epoch.

    Attributes:
        start: the place before the first of these pairs.
        ids: pairs of this rank in order, (m,) int64.
        share: the rank they are for.
    """

    start: OrderState
    ids: Indices
    share: Share

    def state_after(self, batches: int, batch_size: int) -> OrderState:
        """The place after so many batches of this rank (and of every other)."""
        done = batches * batch_size
        if done >= len(self.ids):
            return OrderState(self.start.epoch + 1, 0)
        return OrderState(self.start.epoch, self.start.consumed + done * self.share.world_size)


def epochs(
    seed: int, n: int, state: OrderState, share: Share, global_batch: int
) -> Iterator[EpochPlan]:
    """The plans of one rank from ``state`` on, for ever; the first may begin inside an epoch.

    Args:
        seed: of the run.
        n: pairs in the pack, at least ``global_batch``.
        state: pairs consumed so far over all ranks; the number of ranks may have changed since.
        share: the rank asking.
        global_batch: pairs of one optimizer step over all ranks.
    """
    assert n >= global_batch
    while True:
        order = permutation(seed, state.epoch, n)
        ids = rank_slice(order, state.consumed, share, global_batch)
        if len(ids):
            yield EpochPlan(state, ids, share)
        state = OrderState(state.epoch + 1, 0)


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
