"""The open files of a pack, and what the system keeps of them in its page cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from distill.data.beton import ALLOCATION
from distill.data.beton_index import BetonIndex
from distill.data.order import Keys, Line
from distill.data.pack_index import PackIndex
from distill.errors import UserError


class Region(NamedTuple):
    """A piece of a file.

    Attributes:
        file: handle.
        start: offset in bytes.
        size: length in bytes.
    """

    file: int
    start: int
    size: int


class ShardFiles:
    """Handles of all shards of a pack; close them.

    Raises:
        UserError: a file cannot be opened.
    """

    def __init__(self, index: PackIndex) -> None:
        self.index = index
        self.handles: list[int] = []
        for shard in index.shards:
            try:
                self.handles.append(os.open(shard.path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                self.close()
                raise UserError(
                    f"{shard.path}: cannot be read ({error.strerror})",
                    fix="restore the file, or raise the limit of open files (ulimit -n)",
                ) from error

    def close(self) -> None:
        """Closes all of them; safe to call twice."""
        while self.handles:
            os.close(self.handles.pop())

    def regions(self, first: int, last: int) -> Iterator[Region]:
        """Where the pairs ``first`` .. ``last`` lie: entries, table and images, of each shard.

        Images are left out where a damaged table says nothing of them; readers name the damage.
        """
        index = self.index
        (low, _), (high, _) = index.locate(np.array([first, last])).tolist()
        for number in range(low, high + 1):
            shard, start = index.shards[number], int(index.starts[number])
            rows = max(first - start, 0), min(last - start, len(shard) - 1)
            yield from self._of_shard(self.handles[number], shard, *rows)

    def _of_shard(self, file: int, shard: BetonIndex, first: int, last: int) -> Iterator[Region]:
        rows, images = last - first + 1, len(shard.layout.images)
        size = shard.layout.row.itemsize
        yield Region(file, shard.layout.metadata_start + first * size, rows * size)
        size = images * ALLOCATION.itemsize
        yield Region(file, shard.table + first * size, rows * size)
        ends = [os.pread(file, size, shard.table + row * size) for row in (first, last)]
        if any(len(data) < size for data in ends):
            return
        begin, end = (np.frombuffer(data, ALLOCATION) for data in ends)
        start, stop = int(begin["ptr"][0]), int(end["ptr"][-1]) + int(end["size"][-1])
        if shard.data_start <= start <= stop <= shard.table:
            yield Region(file, start, stop - start)


class Windows:
    """Keeps the page cache to the windows that are being read: the next is fetched while one is
    decoded, and what all of a window's places are behind is let go.

    Args:
        files: of the pack.
        line: what this rank reads; its order has blocks.
    """

    def __init__(self, files: ShardFiles, line: Line) -> None:
        self._files, self._line = files, line
        self._held: list[tuple[int, int]] = []

    def batches(self) -> Iterator[Keys]:
        """The batches of the line; the system is advised before each is handed out."""
        for number, keys in enumerate(self._line.batches()):
            self._advise(*(self._window(place) for place in self._line.span(number)))
            yield keys

    def _window(self, place: int) -> tuple[int, int]:
        """Epoch and window of a place."""
        order = self._line.order
        epoch, within = divmod(place, order.n)
        return epoch, int(order.plan(epoch).window_at(np.array([within]))[0])

    def _after(self, window: tuple[int, int]) -> tuple[int, int]:
        epoch, number = window
        if number + 1 < self._line.order.plan(epoch).windows():
            return epoch, number + 1
        return epoch + 1, 0

    def _advise(self, low: tuple[int, int], high: tuple[int, int]) -> None:
        """Lets windows before ``low`` go; asks for those up to the one after ``high``."""
        while self._held and self._held[0] < low:
            self._tell(self._held.pop(0), os.POSIX_FADV_DONTNEED)
        last = self._after(high)
        window = self._after(self._held[-1]) if self._held else low
        while window <= last:
            self._tell(window, os.POSIX_FADV_WILLNEED)
            self._held.append(window)
            window = self._after(window)

    def _tell(self, window: tuple[int, int], advice: int) -> None:
        order = self._line.order
        assert order.blocks is not None
        size = order.blocks.pairs
        for block in order.plan(window[0]).members(window[1]).tolist():
            ends = np.array([block * size, min((block + 1) * size, order.n) - 1])
            for region in self._files.regions(*order.gaps.pairs(ends).tolist()):
                os.posix_fadvise(*region, advice)
