"""Pairs through FFCV: its loader, mapped file and JPEG decoder; our order, checks and changes.

FFCV 1.0.2 as it comes draws random numbers that no seed repeats, shows another image's pixels for a
corrupt JPEG, and lets its consumer wait for ever when a thread fails. What is ours here:

- the order: `keys` of (epoch, sample) are handed to its loader as a traversal order;
- the operations of its pipelines: `_Decode` checks bytes and return codes and reports a status,
  `_Look` looks up numbers; FFCV compiles nothing, as `kernels` brings cached machine code;
- the consumer's side: a timed get, a look whether the thread lives, and a close that joins it.

`ffcv_import.import_ffcv` comes first: on its own, FFCV's import takes seconds and changes torch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from queue import Empty
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ffcv.libffcv import lib
from ffcv.loader import Loader, OrderOption
from ffcv.loader import loader as ffcv_loader
from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
from ffcv.pipeline import PipelineSpec
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from ffcv.reader import Reader as FFCVHeader

from distill.data import kernels
from distill.data.augment import Numbers, changes
from distill.data.batch import PairBatch
from distill.data.beton import SIDE, checksum_salts
from distill.data.beton_index import BetonIndex
from distill.data.order import Indices
from distill.data.reading import ReaderOptions, packed_crcs, raise_if_corrupt

Bytes = npt.NDArray[np.uint8]

_SAMPLE_BITS = 40
_POLL_SECONDS = 0.2


def _keys(epoch: int, ids: Indices) -> Indices:
    """Epoch and sample in one number, as FFCV hands a single one to its operations."""
    return ids | (epoch << _SAMPLE_BITS)


def _parts(keys: Indices) -> tuple[int, Indices]:
    """The epoch and the samples of one batch."""
    return int(keys[0] >> _SAMPLE_BITS), keys & ((1 << _SAMPLE_BITS) - 1)


class _Look(Operation):  # type: ignore[misc]
    """A number of each pair: a column of the metadata, or (None) its place in the pack."""

    def __init__(self, column: npt.NDArray[np.int64] | None) -> None:
        super().__init__()
        self._column = column

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, shape=(1,), dtype=np.dtype("<i8")), None

    def generate_code(self) -> Callable[..., Numbers]:
        def look(keys: Indices, _memory: None, _metadata: object, _storage: object) -> Numbers:
            ids = _parts(keys)[1]
            return ids if self._column is None else self._column[ids]

        return look


class _Decode(Operation):  # type: ignore[misc]
    """Images of one side, checked, decoded and changed; with the status of each.

    Every batch gets memory of its own, so nothing that was handed out is ever written again.
    A failure of a decoding thread is kept in `failures` for the consumer, never swallowed.
    """

    def __init__(
        self, which: int, index: BetonIndex, options: ReaderOptions, pool: ThreadPoolExecutor
    ) -> None:
        super().__init__()
        self._which, self._index, self._options, self._pool = which, index, options, pool
        self._tables = kernels.crc_tables()
        self.failures: list[BaseException] = []

    def declare_state_and_memory(
        self, previous_state: State
    ) -> tuple[State, AllocationQuery | None]:
        return replace(previous_state, shape=(3, SIDE, SIDE), dtype=np.dtype("<u1")), None

    def generate_code(self) -> Callable[..., tuple[torch.Tensor, Bytes]]:
        return self._decode

    def _decode(
        self, keys: Indices, _memory: None, _metadata: object, storage: tuple[Any, ...]
    ) -> tuple[torch.Tensor, Bytes]:
        images = _fresh((len(keys), 3, SIDE, SIDE))
        status = np.full(len(keys), kernels.UNDECODABLE, np.uint8)
        out = images.numpy()
        tasks = [
            self._pool.submit(self._decode_rows, storage[0], keys[rows], out[rows], status[rows])
            for rows in _runs(len(keys), self._options.threads)
        ]
        self._keep_failures(tasks)
        return images, status

    def _decode_rows(self, file: Bytes, keys: Indices, out: Bytes, status: Bytes) -> None:
        """Some rows of a batch, in a thread of the pool; the compiled loop runs without the GIL."""
        epoch, ids = _parts(keys)
        index, options, which = self._index, self._options, self._which
        regions = np.stack([index.pointers[ids, which], index.sizes[ids, which]], axis=1)
        all_changes = changes(options.seed, epoch, ids, options.amplitudes)
        change = np.stack([field[:, which] for field in all_changes], axis=1)
        kernels.decode_images(file, regions, self._crcs(ids), change, self._tables, out, status)

    def _keep_failures(self, tasks: Iterable[Future[None]]) -> None:
        done, _ = wait(tasks)
        self.failures.extend(error for task in done if (error := task.exception()) is not None)

    def _crcs(self, ids: Numbers) -> npt.NDArray[np.uint32]:
        """Initial and expected CRC-32 of each image, (B, 2)."""
        rows = self._index.samples[ids]
        salts = [
            checksum_salts(int(label), int(kind))[self._which]
            for label, kind in zip(rows["label"], rows["kind"], strict=True)
        ]
        expected = packed_crcs(self._index, ids, self._which)
        return np.stack([np.array(salts), expected], axis=1).astype(np.uint32)


def _runs(n: int, parts: int) -> list[slice]:
    """0 .. n in at most ``parts`` runs of nearly equal length, none of them empty."""
    parts = min(n, parts)
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def _fresh(shape: tuple[int, ...]) -> torch.Tensor:
    """Uninitialised bytes, page-locked where there is a GPU to copy them to."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


class _LeanCache(OSCacheManager):  # type: ignore[misc]
    """FFCV's mapped file without the dictionaries that cost it 0.7 GB a million pairs."""

    def __init__(self, reader: FFCVHeader) -> None:
        self.reader = reader
        self.ptrs = self.sizes = np.zeros(0, np.uint64)  # our operations know where images are
        self.context = OSCacheContext(self)


class _OwnOrder:
    """A traversal order of given keys; assigned to a loader, which refuses it when it is built."""

    def __init__(self, keys: Indices) -> None:
        self._keys = keys

    def sample_order(self, _epoch: int) -> Indices:
        return self._keys


def _tame_ffcv() -> None:
    """Stops FFCV from compiling what is compiled, and from changing torch's threads all over."""
    Compiler.set_enabled(False)
    Compiler.set_num_threads = lambda _threads: None  # it is called in three places, by two threads
    ffcv_loader.OSCacheManager = _LeanCache


class _FFCVPass:
    """One pass of FFCV's loader, with the safety it lacks."""

    def __init__(self, reader: FFCVReader, loader: Loader) -> None:
        self._reader = reader
        self._thread = iter(loader)

    @property
    def drained(self) -> bool:
        return not self._thread.is_alive()

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        result = self._next_result()
        self._reader.raise_failures()
        if result is None:
            raise StopIteration
        (first, first_status), (second, second_status), labels, kinds, ids = result[1]
        raise_if_corrupt(self._reader.index.path, ids, (first_status, second_status))
        return PairBatch(first, second, *map(torch.from_numpy, (labels, kinds, ids)))

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
                raise RuntimeError(f"{self._reader.index.path}: the loader's thread died") from None
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
    """Reads pairs of a checked `.beton` with FFCV.

    Args:
        index: of the file, from `beton.read_index` (FFCV itself checks nothing).
        options: batch size, changes, threads.
    """

    def __init__(self, index: BetonIndex, options: ReaderOptions) -> None:
        _tame_ffcv()
        kernels.bind_decoder(ctypes.cast(lib.imdecode, ctypes.c_void_p).value or 0)
        kernels.warm_up()
        self.index = index
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="pairdistill-decode")
        self._sides = [_Decode(which, index, options, self._pool) for which in (0, 1)]
        self._loader = Loader(
            str(index.path),
            batch_size=options.batch_pairs,
            num_workers=1,
            os_cache=True,
            order=OrderOption.SEQUENTIAL,
            seed=0,  # unused; left out, it would be drawn from numpy's global generator
            pipelines=self._pipelines(),
            drop_last=False,
            batches_ahead=options.ahead,
        )
        self._passes: list[_FFCVPass] = []

    def _pipelines(self) -> dict[str, PipelineSpec | None]:
        numbers = {name: self.index.samples[name] for name in ("label", "kind")}
        operations: dict[str, Operation] = {
            "first": self._sides[0],
            "second": self._sides[1],
            **{name: _Look(np.ascontiguousarray(column)) for name, column in numbers.items()},
            "checksum": _Look(None),
        }
        return {name: PipelineSpec(name, decoder=op) for name, op in operations.items()}

    def start(self, epoch: int, ids: Indices) -> _FFCVPass:
        """See `reading.Reader`."""
        order = _OwnOrder(_keys(epoch, ids))
        self._loader.traversal_order = order
        self._loader.first_traversal_order = order.sample_order(
            epoch
        )  # its length is taken from this
        self._passes = [p for p in self._passes if not p.drained]
        self._passes.append(_FFCVPass(self, self._loader))
        return self._passes[-1]

    def raise_failures(self) -> None:
        """Raises in the consumer what a decoding thread raised."""
        for side in self._sides:
            if side.failures:
                raise side.failures[0]

    def close(self) -> None:
        """See `reading.Reader`."""
        for under_way in self._passes:
            under_way.close()
        self._passes.clear()
        self._pool.shutdown(wait=True)
