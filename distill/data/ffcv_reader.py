"""Pairs through FFCV: its loader and pipelines; our order, checks and changes.

FFCV 1.0.2 as it comes draws random numbers that no seed repeats, shows another image's pixels for a
corrupt JPEG, reads one file, wants all of its index in memory, and lets its consumer wait for ever
when a thread fails. What is ours here:

- the order: batches of (epoch, pair) are handed to its thread, without end where training is;
- the operation of its pipeline: `_Read` has `decoded_rows` fetch, check, decode and change images
  in threads and report a status; FFCV compiles nothing, `decoder` brings machine code;
- no waiting for a batch before the next is begun: its thread hands over what is under way, so that
  a decoding thread which is done early has work;
- the consumer's side: a timed get, a look whether the thread lives, and a close that joins it.

`ffcv_import.import_ffcv` comes first: on its own, FFCV's import takes seconds and changes torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ffcv.libffcv import lib
from ffcv.loader import Loader, OrderOption
from ffcv.loader import loader as ffcv_loader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
from ffcv.pipeline import PipelineSpec
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from ffcv.reader import Reader as FFCVHeader

from distill.arrays import Numbers
from distill.data.batch import PairBatch
from distill.data.decoded_rows import DecodedRows, Filled
from distill.data.order import Keys
from distill.data.reading import ReaderOptions, raise_if_corrupt
from distill.data.shard_files import ShardFiles

_POLL_SECONDS = 0.2


class _UnderWay(NamedTuple):
    """A batch that threads are filling.

    Attributes:
        keys: epoch and pair of each row, (B, 2).
        batch: being filled.
        tasks: done when it is full.
    """

    keys: Keys
    batch: Filled
    tasks: list[Future[None]]


class _Read(Operation):  # type: ignore[misc]
    """Pairs, fetched, checked, decoded and changed."""

    def __init__(self, files: ShardFiles, options: ReaderOptions) -> None:
        super().__init__()
        self._form = files.index.side, options.images_per_pair
        self._threads = options.threads
        self._rows = DecodedRows(files, options, lib)
        self._rows.warm_up()
        self._idle: SimpleQueue[Numbers] = SimpleQueue()  # decoders, as many as threads
        for handle in self._rows.handles:
            self._idle.put(handle)
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="pairdistill-decode")

    def declare_state_and_memory(
        self, previous_state: State
    ) -> tuple[State, AllocationQuery | None]:
        return replace(previous_state, shape=(1,), dtype=np.dtype("<u1")), None

    def generate_code(self) -> Callable[..., _UnderWay]:
        return self._read

    def _read(self, keys: Keys, _memory: None, _metadata: object, _storage: object) -> _UnderWay:
        batch = Filled.empty(len(keys), *self._form)
        runs = _runs(len(keys), self._threads)
        tasks = [self._pool.submit(self._fill, keys[rows], batch.some(rows)) for rows in runs]
        return _UnderWay(keys, batch, tasks)

    def _fill(self, keys: Keys, batch: Filled) -> None:
        handle = self._idle.get()
        try:
            self._rows.fill(keys, batch, handle)
        finally:
            self._idle.put(handle)

    def close(self) -> None:
        """Joins the threads and frees their decoders."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._rows.close()


def _runs(n: int, parts: int) -> list[slice]:
    """0 .. n in at most ``parts`` runs of nearly equal length, none of them empty."""
    parts = min(n, parts)
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


class _LeanHeader(FFCVHeader):  # type: ignore[misc]
    """FFCV's reader of headers, without all the metadata and allocations in memory."""

    def read_metadata(self) -> None:
        self.metadata = np.zeros(0, self.metadata_type)

    def read_allocation_table(self) -> None:
        self.alloc_table = None  # our operation knows where images are


class _LeanCache(OSCacheManager):  # type: ignore[misc]
    """FFCV's view of the file, without the dictionaries that cost it 0.7 GB a million pairs."""

    def __init__(self, reader: FFCVHeader) -> None:
        self.reader = reader
        self.ptrs = self.sizes = np.zeros(0, np.uint64)
        self.context = OSCacheContext(self)

    def compile_reader(self) -> None:
        """Nothing reads through FFCV. (Its own changes numba's type of byte arrays for the whole
        process, after which functions that are compiled already are not found again.)
        """


def _tame_ffcv() -> None:
    """Stops FFCV from compiling what is compiled, and from changing torch's threads all over."""
    Compiler.set_enabled(False)
    Compiler.set_num_threads = lambda _threads: None  # it is called in three places, by two threads
    ffcv_loader.OSCacheManager = _LeanCache
    ffcv_loader.Reader = _LeanHeader


class _Thread(EpochIterator):  # type: ignore[misc]
    """FFCV's thread, working through batches that come one by one, perhaps for ever.

    Attributes:
        failure: what ended it before the end of the batches.
    """

    failure: Exception | None = None

    def __init__(self, loader: Loader, batches: Iterator[Keys]) -> None:
        self._batches = batches
        super().__init__(loader, np.zeros(0, np.int64))  # which calls `start`

    def start(self) -> None:
        self.iter_ixes = self._batches
        super().start()

    def run(self) -> None:
        try:
            super().run()
        except Exception as failure:  # noqa: BLE001 - the consumer raises it
            self.failure = failure


class _FFCVPass:
    """One request to FFCV's loader, with the safety it lacks."""

    def __init__(self, reader: FFCVReader, loader: Loader, batches: Iterator[Keys]) -> None:
        self._reader = reader
        self._thread = _Thread(loader, batches)

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        result = self._next_result()
        if result is None:
            raise StopIteration
        under_way: _UnderWay = result[1][0]
        keys, batch, tasks = under_way
        for task in tasks:
            task.result()  # raises here what a decoding thread raised
        self._reader.raise_if_corrupt(keys, batch.status.numpy())
        return batch.pairs(keys)

    def _next_result(self) -> tuple[int, tuple[Any, ...]] | None:
        """What the thread produced next; None at the end."""
        while True:
            alive = self._thread.is_alive()  # asked before the queue: it may end in between
            try:
                result: tuple[int, tuple[Any, ...]] | None
                result = self._thread.output_queue.get(timeout=_POLL_SECONDS if alive else 0)
            except Empty:
                if alive:
                    continue
                raise RuntimeError("the loader's thread died") from self._thread.failure
            if result is None:
                self._thread.output_queue.put(None)  # the end stays the end
            return result

    def close(self) -> None:
        """Ends the thread, which would otherwise wait for ever to hand over its next batch."""
        thread = self._thread
        thread.iter_ixes = iter(())
        thread.terminate_event.set()
        while thread.is_alive():
            try:
                thread.output_queue.get(timeout=0.02)
            except Empty:
                thread.join(0.02)


class FFCVReader:
    """Reads pairs with FFCV.

    Args:
        files: of the pack, checked and open; owned from here on.
        options: changes, threads.
    """

    def __init__(self, files: ShardFiles, options: ReaderOptions) -> None:
        _tame_ffcv()
        self.files = files
        self._read = _Read(files, options)
        self._online = options.online
        names = files.index.layout.fields
        self._loader = Loader(
            str(files.index.shards[0].path),
            batch_size=1,  # batches come with the order
            num_workers=1,
            os_cache=True,
            order=OrderOption.SEQUENTIAL,
            seed=0,  # unused; left out, it would be drawn from numpy's global generator
            indices=[0],  # likewise; left out, it would be a list of all samples
            pipelines={
                **dict.fromkeys(names),
                "first": PipelineSpec("first", decoder=self._read),
            },
            drop_last=False,
            batches_ahead=options.ahead,
        )
        self._passes: list[_FFCVPass] = []

    def start(self, batches: Iterator[Keys]) -> _FFCVPass:
        """See `reading.Reader`."""
        self._passes.append(_FFCVPass(self, self._loader, batches))
        return self._passes[-1]

    def raise_if_corrupt(self, keys: Keys, statuses: npt.NDArray[np.uint8]) -> None:
        """Raises for the first image of a batch whose status, (B, 2) or (B, 1), is not good."""
        if self._online is None:
            raise_if_corrupt(self.files.index, keys[:, 1], statuses)
        else:
            self._online.raise_if_corrupt(self.files.index, keys, statuses)

    def close(self) -> None:
        """See `reading.Reader`."""
        for under_way in self._passes:
            under_way.close()
        self._passes.clear()
        self._read.close()
        self.files.close()
