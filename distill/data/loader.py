"""From a pack to batches of pairs: endless and resumable to train, each pair once to evaluate."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import Protocol, Self

from distill.config.tree import DataConfig
from distill.data.augment import NONE, Amplitudes
from distill.data.batch import OrderState, PairBatch
from distill.data.beton_index import BetonIndex
from distill.data.manifest import Pack
from distill.data.order import EpochPlan, Share, check_global_batch, epochs, evaluation_slice
from distill.data.python_reader import PythonReader
from distill.data.reading import Pass, Reader, ReaderOptions

log = logging.getLogger(__name__)


class RanksLike(Protocol):
    """What a loader needs to know of the ranks."""

    @property
    def rank(self) -> int:
        """0 .. world_size - 1."""

    @property
    def world_size(self) -> int:
        """Ranks W."""


class PairLoader:
    """Training batches for ever, each with the place in the order after it.

    The next epoch is begun as soon as this one is decoded, so its first batch does not wait.
    Use it as a context manager, or `close` it: threads belong to it.

    Args:
        reader: owned from here on.
        plans: epochs of this rank, endless.
        batch_pairs: pairs of a batch of this rank.
        dropped_pairs: pairs of an epoch that fill no global batch and are left out, over all ranks.

    Attributes:
        wait_seconds: time spent waiting for batches so far, in seconds.
    """

    def __init__(
        self, reader: Reader, plans: Iterator[EpochPlan], batch_pairs: int, dropped_pairs: int = 0
    ) -> None:
        self._reader, self._plans, self._batch_pairs = reader, plans, batch_pairs
        self.dropped_pairs = dropped_pairs
        self.wait_seconds = 0.0
        self._upcoming: tuple[EpochPlan, Pass] | None = None
        self._plan, self._pass = self._begin()
        self._taken = 0

    def _begin(self) -> tuple[EpochPlan, Pass]:
        plan = next(self._plans)
        return plan, self._reader.start(plan.start.epoch, plan.ids)

    def __iter__(self) -> Iterator[tuple[PairBatch, OrderState]]:
        return self

    def __next__(self) -> tuple[PairBatch, OrderState]:
        """The next batch, (B pairs), and the state from which training would go on after it.

        Raises:
            UserError: a corrupt image, naming the pair and the pack.
        """
        began = time.perf_counter()
        if self._taken * self._batch_pairs >= len(self._plan.ids):
            self._plan, self._pass = self._upcoming or self._begin()
            self._upcoming, self._taken = None, 0
        elif self._upcoming is None and self._pass.drained:
            self._upcoming = self._begin()
        batch = next(self._pass)
        self._taken += 1
        self.wait_seconds += time.perf_counter() - began
        return batch, self._plan.state_after(self._taken, self._batch_pairs)

    def close(self) -> None:
        """Stops and joins every thread; safe to call twice."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_reader" in self.__dict__:
            self.close()


def make_train_loader(
    pack: Pack,
    data: DataConfig,
    *,
    seed: int,
    ranks: RanksLike,
    batch_pairs_per_rank: int,
    state: OrderState = OrderState(0, 0),  # noqa: B008  (immutable)
    accumulation: int = 1,
) -> PairLoader:
    """The training pairs of one rank from ``state`` on.

    Args:
        pack: the training pack.
        data: reader, threads and changes.
        seed: of order and changes.
        ranks: rank and world_size.
        batch_pairs_per_rank: pairs of one forward pass of a rank.
        state: the place to go on from, whatever number of ranks it was reached on.
        accumulation: forward passes of one optimizer step; a step never spans two epochs.

    Raises:
        UserError: fewer pairs than one global batch, or a damaged pack.
    """
    share = Share(ranks.rank, ranks.world_size)
    global_batch = batch_pairs_per_rank * share.world_size * accumulation
    n = pack.manifest.pairs
    check_global_batch(n, global_batch, str(pack.path))
    options = ReaderOptions(
        batch_pairs=batch_pairs_per_rank,
        seed=seed,
        amplitudes=Amplitudes.from_config(data),
        threads=clamped_threads(data.workers),
        ahead=data.prefetch_batches,
    )
    plans = epochs(seed, n, state, share, global_batch)
    reader = open_reader(data.reader, pack.index(), options)
    return PairLoader(reader, plans, batch_pairs_per_rank, n % global_batch)


def make_eval_loader(
    pack: Pack, data: DataConfig, *, rank: int, world_size: int, batch_pairs: int
) -> Iterator[PairBatch]:
    """The pairs of one rank in order, unchanged; over all ranks every pair exactly once.

    Ranks get runs whose lengths differ by at most one pair, so one may have a batch more.

    Raises:
        UserError: a damaged pack, or a corrupt image.
    """
    options = ReaderOptions(
        batch_pairs=batch_pairs,
        seed=0,
        amplitudes=NONE,
        threads=clamped_threads(data.workers),
        ahead=data.prefetch_batches,
    )
    ids = evaluation_slice(pack.manifest.pairs, Share(rank, world_size))
    reader = open_reader(data.reader, pack.index(), options)
    try:
        if len(ids):
            yield from reader.start(0, ids)
    finally:
        reader.close()


def open_reader(name: str, index: BetonIndex, options: ReaderOptions) -> Reader:
    """The reader called ``name``: an explicit choice, never a fallback."""
    if name == "python":
        return PythonReader(index, options)
    from distill.data.ffcv_import import import_ffcv

    import_ffcv()
    from distill.data.ffcv_reader import FFCVReader

    return FFCVReader(index, options)


def clamped_threads(wanted: int) -> int:
    """``wanted`` decoding threads, or as many as this process has cores, with a note."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if wanted > cores:
        log.warning("data.workers = %d: this process has %d cores; using %d", wanted, cores, cores)
    return min(wanted, cores)
