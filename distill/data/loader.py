"""From a pack to batches of pairs: endless and resumable to train, each pair once to evaluate."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from distill.config.tree import DataConfig
from distill.data.augment import NONE, Amplitudes
from distill.data.batch import OrderState, PairBatch
from distill.data.manifest import Pack
from distill.data.order import (
    Blocks,
    Indices,
    Keys,
    Line,
    Order,
    Share,
    check_global_batch,
    evaluation_slice,
)
from distill.data.python_reader import PythonReader
from distill.data.reading import Pass, Reader, ReaderOptions
from distill.data.shard_files import ShardFiles, Windows
from distill.data.training_set import TrainingSet
from distill.errors import UserError
from distill.processes.cores import usable_cores

if TYPE_CHECKING:
    from distill.data.online_rows import OnlineRows

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

    Use it as a context manager, or `close` it: threads belong to it.

    Args:
        reader: owned from here on.
        line: the places that this rank works through.
        batches: the same, as the reader is to get it.

    Attributes:
        wait_seconds: time spent waiting for batches so far, in seconds.
    """

    def __init__(self, reader: Reader, line: Line, batches: Iterator[Keys]) -> None:
        self._reader, self._line = reader, line
        self.wait_seconds = 0.0
        self._pass: Pass = reader.start(batches)
        self._taken = 0

    def __iter__(self) -> Iterator[tuple[PairBatch, OrderState]]:
        return self

    def __next__(self) -> tuple[PairBatch, OrderState]:
        """The next batch, (B pairs), and the state from which training would go on after it.

        Raises:
            UserError: a corrupt image, naming the pair and the file.
        """
        began = time.perf_counter()
        batch = next(self._pass)
        self._taken += 1
        self.wait_seconds += time.perf_counter() - began
        return batch, self._line.state_after(self._taken)

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
    train: TrainingSet | Pack,
    data: DataConfig,
    *,
    seed: int,
    ranks: RanksLike,
    batch_pairs_per_rank: int,
    state: OrderState = OrderState(0, 0),  # noqa: B008  (immutable)
    accumulation: int = 1,
    images_per_pair: int = 2,
) -> PairLoader:
    """The training pairs of one rank from ``state`` on.

    Args:
        train: the training pack, or several as one.
        data: reader, threads and changes.
        seed: of order and changes.
        ranks: rank and world_size.
        batch_pairs_per_rank: pairs of one forward pass of a rank.
        state: the place to go on from, whatever number of ranks it was reached on.
        accumulation: forward passes of one optimizer step.
        images_per_pair: 2, or 1: the same first images in the same order, and no second ones.

    Raises:
        UserError: fewer pairs than one global batch, a damaged pack, or one whose layout does not
            fit ``data.second``.
    """
    train = train if isinstance(train, TrainingSet) else TrainingSet.of([train])
    share = Share(ranks.rank, ranks.world_size)
    n = train.pairs
    check_global_batch(n, batch_pairs_per_rank * share.world_size * accumulation, train.name)
    blocks = Blocks(data.block_pairs, data.window_blocks) if data.shuffle == "block" else None
    line = Line(Order(seed, n, blocks, train.gaps), state, share, batch_pairs_per_rank)
    check_layout(train, data)
    online = online_rows(train, data, seed) if images_per_pair == 2 else None
    files = ShardFiles(train.index)
    batches = line.batches() if blocks is None else Windows(files, line).batches()
    options = ReaderOptions(
        seed=seed,
        amplitudes=Amplitudes.from_config(data),
        threads=clamped_threads(data.workers),
        ahead=data.prefetch_batches,
        online=online,
        images_per_pair=images_per_pair,
    )
    return PairLoader(open_reader(data.reader, files, options), line, batches)


def make_eval_loader(
    pack: Pack, data: DataConfig, *, rank: int, world_size: int, batch_pairs: int
) -> Iterator[PairBatch]:
    """The pairs of one rank in order, unchanged; over all ranks every pair exactly once.

    Ranks get runs whose lengths differ by at most one pair, so one may have a batch more.

    Raises:
        UserError: a damaged pack, one without second images, or a corrupt image.
    """
    check_second(pack, "packed", "evaluate on a pack whose second images are in it")
    ids = evaluation_slice(pack.manifest.pairs, Share(rank, world_size))
    yield from _unchanged(pack, data, ids, batch_pairs, images_per_pair=2)


def make_photograph_loader(
    pack: Pack, data: DataConfig, *, rank: int, world_size: int, batch_images: int
) -> Iterator[PairBatch]:
    """The photographs of one rank in order, unchanged; over all ranks each exactly once.

    A photograph is the first image of its first pair; no second ones are read.

    Raises:
        UserError: a damaged pack, or a corrupt image.
    """
    step = pairs_per_photograph(pack)
    ids = evaluation_slice(pack.manifest.pairs // step, Share(rank, world_size)) * step
    yield from _unchanged(pack, data, ids, batch_images, images_per_pair=1)


def make_chosen_loader(
    pack: Pack, data: DataConfig, pairs: Indices, batch_images: int
) -> Iterator[PairBatch]:
    """The first images of some pairs, (n,), in their order, unchanged; of none, nothing.

    Raises:
        UserError: a damaged pack, or a corrupt image.
    """
    yield from _unchanged(pack, data, pairs, batch_images, images_per_pair=1)


def pairs_per_photograph(pack: Pack) -> int:
    """Neighbours that have one first image; 1 where the counts of the manifest do not say so."""
    times, rest = divmod(pack.manifest.pairs, pack.manifest.photographs)
    return times if times and not rest else 1


def _unchanged(
    pack: Pack, data: DataConfig, ids: Indices, batch_pairs: int, *, images_per_pair: int
) -> Iterator[PairBatch]:
    """The pairs ``ids`` of a pack as they were packed."""
    options = ReaderOptions(
        seed=0,
        amplitudes=NONE,
        threads=clamped_threads(data.workers),
        ahead=data.prefetch_batches,
        images_per_pair=images_per_pair,
    )
    reader = open_reader(data.reader, ShardFiles(pack.index), options)
    try:
        yield from reader.start(_in_order(ids, batch_pairs))
    finally:
        reader.close()


def _in_order(ids: Indices, batch_pairs: int) -> Iterator[Keys]:
    """Batches of ``ids`` as they are, of epoch 0."""
    for start in range(0, len(ids), batch_pairs):
        part = ids[start : start + batch_pairs]
        yield np.stack([np.zeros_like(part), part], axis=1)


def check_layout(train: TrainingSet, data: DataConfig) -> None:
    """Compares the training packs with ``data.second``.

    Raises:
        UserError: they do not fit.
    """
    layout = "pairs" if data.second == "packed" else "singles"
    for pack in train.packs:
        found = pack.manifest.second
        fix = f"set data.second = {found!r}, or pack again with --layout {layout}"
        check_second(pack, data.second, fix)


def check_second(pack: Pack, wanted: str, fix: str) -> None:
    """Refuses a pack that has second images and should not, or has none and should."""
    if (found := pack.manifest.second) != wanted:
        has = "has second images" if found == "packed" else "has no second images"
        raise UserError(f"{pack.path}: {has}, and {wanted!r} ones are asked for", fix=fix)


def online_rows(train: TrainingSet, data: DataConfig, seed: int) -> OnlineRows | None:
    """What makes second images, or None where they are in the packs.

    Raises:
        UserError: a pack that nothing can be made of.
    """
    if data.second == "packed":
        return None
    from distill.data.online_rows import OnlineRows  # numba and all kinds: only where needed

    return OnlineRows.of(train, seed)


def open_reader(name: str, files: ShardFiles, options: ReaderOptions) -> Reader:
    """The reader called ``name``: an explicit choice, never a fallback."""
    if name == "python":
        return PythonReader(files, options)
    from distill.data.ffcv_import import import_ffcv

    import_ffcv()
    from distill.data.ffcv_reader import FFCVReader

    return FFCVReader(files, options)


def clamped_threads(wanted: int) -> int:
    """``wanted`` decoding threads, or as many as this process has cores, with a note."""
    cores = usable_cores()
    if wanted > cores:
        log.warning("data.workers = %d: this process has %d cores; using %d", wanted, cores, cores)
    return min(wanted, cores)
