"""Pairs through FFCV: its loader and pipelines; our order, checks and changes.

FFCV 1.0.2 as it comes draws random numbers that no seed repeats, shows another image's pixels for a
corrupt JPEG, reads one file, wants all of its index in memory, and lets its consumer wait for ever
when a thread fails. What is ours here:

- the order: batches of (epoch, pair) are handed to its thread, without end where training is;
- the operation of its pipeline: `_Read` fetches, checks, decodes and changes both images in
  compiled threads and reports a status; FFCV compiles nothing, `decoder` brings machine code;
- the consumer's side: a timed get, a look whether the thread lives, and a close that joins it.

`ffcv_import.import_ffcv` comes first: on its own, FFCV's import takes seconds and changes torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from queue import Empty
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
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

from distill.data import decoder, kernels
from distill.data.augment import Numbers, changes
from distill.data.batch import PairBatch
from distill.data.order import Keys
from distill.data.reading import Firsts, ReaderOptions, raise_if_corrupt
from distill.data.shard_files import ShardFiles

if TYPE_CHECKING:
    from distill.data.online_rows import OnlineRows

_POLL_SECONDS = 0.2
_MADE_AT_ONCE = 64
"""Pairs whose second images a thread makes at a time: a few MB of pixels in between."""


class _Filled(NamedTuple):
    """A batch, or some of its rows, with the status of each image.

    Attributes:
        first: (B, 3, S, S) uint8.
        second: likewise.
        numbers: label and kind, (B, 2) int64.
        status: of both images, (B, 2) uint8.
    """

    first: torch.Tensor
    second: torch.Tensor
    numbers: torch.Tensor
    status: torch.Tensor

    @classmethod
    def empty(cls, rows: int, side: int) -> _Filled:
        """Memory of its own for every batch: nothing that was handed out is written again."""
        return cls(
            _fresh((rows, 3, side, side)),
            _fresh((rows, 3, side, side)),
            torch.zeros((rows, 2), dtype=torch.int64),
            torch.full((rows, 2), decoder.UNDECODABLE, dtype=torch.uint8),
        )


class _Read(Operation):  # type: ignore[misc]
    """Pairs, fetched, checked, decoded and changed.

    A failure of a decoding thread is kept in `failures` for the consumer, never swallowed.
    """

    def __init__(self, files: ShardFiles, options: ReaderOptions) -> None:
        super().__init__()
        self._index, self._options = files.index, options
        self._files = decoder.file_table(files.index, files.handles)
        self._form = decoder.form_table(files.index)
        self._tables = kernels.crc_tables()
        self._jpeg = decoder.TurboJpeg(lib, options.threads)
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="pairdistill-decode")
        self.failures: list[BaseException] = []

    def declare_state_and_memory(
        self, previous_state: State
    ) -> tuple[State, AllocationQuery | None]:
        return replace(previous_state, shape=(1,), dtype=np.dtype("<u1")), None

    def generate_code(self) -> Callable[..., tuple[Keys, _Filled]]:
        return self._read

    def _read(
        self, keys: Keys, _memory: None, _metadata: object, _storage: object
    ) -> tuple[Keys, _Filled]:
        batch = _Filled.empty(len(keys), self._index.side)
        work = self._rows if self._options.online is None else self._online_rows
        tasks = [
            self._pool.submit(work, keys, rows, batch, handle)
            for rows, handle in zip(
                _runs(len(keys), self._options.threads), self._jpeg.handles, strict=False
            )
        ]
        done, _ = wait(tasks)
        self.failures.extend(error for task in done if (error := task.exception()) is not None)
        return keys, batch

    def _rows(self, keys: Keys, rows: slice, batch: _Filled, handle: Numbers) -> None:
        """Some rows of a batch, in a thread of the pool; the compiled loop runs without the GIL."""
        epochs, ids = keys[rows, 0], keys[rows, 1]
        change = changes(self._options.seed, epochs, ids, self._options.amplitudes)
        decoder.read_pairs(
            self._files,
            self._form,
            self._index.locate(ids),
            handle,
            self._tables,
            np.stack(change, axis=-1),
            *(part.numpy()[rows] for part in batch),
        )

    def _online_rows(self, keys: Keys, rows: slice, batch: _Filled, handle: Numbers) -> None:
        """As `_rows`, of a pack of first images: their second ones are made here, some at a time.

        Nothing is made of what is corrupt: the consumer raises before it looks at pixels.
        """
        for start in range(rows.start, rows.stop, _MADE_AT_ONCE):
            some = slice(start, min(start + _MADE_AT_ONCE, rows.stop))
            self._made(keys[some], _Filled(*(part[some] for part in batch)), handle)

    def _made(self, keys: Keys, batch: _Filled, handle: Numbers) -> None:
        """A few pairs of a pack of first images."""
        online = self._options.online
        assert online is not None
        drawn = online.draw(keys)
        images = [self._firsts(online, ids, handle) for ids in (keys[:, 1], drawn.read)]
        batch.status.copy_(torch.from_numpy(np.stack([i.status for i in images], axis=1)))
        if batch.status.any():
            return
        firsts, others = images
        change = changes(self._options.seed, keys[:, 0], keys[:, 1], self._options.amplitudes)
        both = np.ascontiguousarray(np.stack(change, axis=-1).transpose(1, 0, 2))
        kernels.place_all(firsts.pixels, both[0], batch.first.numpy())
        seconds = online.seconds(keys, drawn, firsts, others)
        kernels.place_all(seconds, both[1], batch.second.numpy())
        numbers = np.stack([firsts.numbers[:, 0], online.way_of[drawn.bits]], axis=1)
        batch.numbers.copy_(torch.from_numpy(numbers))

    def warm_up(self) -> None:
        """Compiles what second images need, before any thread calls it."""
        none = np.zeros((0, 2), np.int64)
        self._made(none, _Filled.empty(0, self._index.side), self._jpeg.handles[0])

    def _firsts(self, online: OnlineRows, ids: Numbers, handle: Numbers) -> Firsts:
        """First images as they were packed; nothing where an id is below 0."""
        read = Firsts.empty(len(ids), self._index.side)
        places = self._index.locate(ids)
        decoder.read_firsts(self._files, self._form, places, handle, self._tables, *read)
        read.status[(read.status == decoder.GOOD) & online.strangers(ids, read.numbers[:, 0])] = (
            decoder.MISPLACED
        )
        return read

    def close(self) -> None:
        """Joins the threads and frees their decoders."""
        self._pool.shutdown(wait=True)
        self._jpeg.close()


def _runs(n: int, parts: int) -> list[slice]:
    """0 .. n in at most ``parts`` runs of nearly equal length, none of them empty."""
    parts = min(n, parts)
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def _fresh(shape: tuple[int, ...]) -> torch.Tensor:
    """Uninitialised bytes, page-locked where there is a GPU to copy them to."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


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
    """FFCV's thread, working through batches that come one by one, perhaps for ever."""

    def __init__(self, loader: Loader, batches: Iterator[Keys]) -> None:
        self._batches = batches
        super().__init__(loader, np.zeros(0, np.int64))  # which calls `start`

    def start(self) -> None:
        self.iter_ixes = self._batches
        super().start()


class _FFCVPass:
    """One request to FFCV's loader, with the safety it lacks."""

    def __init__(self, reader: FFCVReader, loader: Loader, batches: Iterator[Keys]) -> None:
        self._reader = reader
        self._thread = _Thread(loader, batches)

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        result = self._next_result()
        self._reader.raise_failures()
        if result is None:
            raise StopIteration
        keys, batch = result[1][0]
        self._reader.raise_if_corrupt(keys, batch.status.numpy())
        labels, kinds = batch.numbers.t().contiguous()
        return PairBatch(
            batch.first, batch.second, labels, kinds, torch.from_numpy(keys[:, 1].copy())
        )

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
                self._reader.raise_failures()
                raise RuntimeError("the loader's thread died") from None
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
        decoder.warm_up(files.index.side)
        if self._online is not None:
            self._read.warm_up()
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

    def raise_failures(self) -> None:
        """Raises in the consumer what a decoding thread raised."""
        if self._read.failures:
            raise self._read.failures[0]

    def raise_if_corrupt(self, keys: Keys, statuses: npt.NDArray[np.uint8]) -> None:
        """Raises for the first image of a batch whose status, (B, 2), is not good."""
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
