"""What a reader is: the small interface behind which FFCV, or plain Python, decodes pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.augment import Amplitudes
from distill.data.batch import PairBatch
from distill.data.beton import FACE_BYTES
from distill.data.order import Keys
from distill.data.pack_index import PackIndex
from distill.errors import UserError

if TYPE_CHECKING:
    from distill.data.online_rows import OnlineRows

GOOD, ALTERED, UNDECODABLE, UNREADABLE, MISPLACED = range(5)
"""Status of an image: fine; other bytes than were packed; no JPEG of the right form; the file ends
before it, or cannot be read; its entry does not agree with the table of the file."""
FAULTS = {
    ALTERED: "its bytes are not those that were packed",
    UNDECODABLE: "it is not a readable JPEG of the pack's form",
    UNREADABLE: "the file ends before it, or cannot be read",
    MISPLACED: "its entry is damaged",
}
"""What is said of each status that is not good."""


class ReaderOptions(NamedTuple):
    """How a reader reads.

    Attributes:
        seed: of the changes.
        amplitudes: of the changes.
        threads: decoding threads.
        ahead: batches decoded ahead of the consumer.
        online: makes the second images of a pack that has none.
        images_per_pair: 2, or 1 where only first images are read.
    """

    seed: int
    amplitudes: Amplitudes
    threads: int = 1
    ahead: int = 2
    online: OnlineRows | None = None
    images_per_pair: int = 2


class Firsts(NamedTuple):
    """First images as they were packed.

    Attributes:
        pixels: (B, S, S, 3) uint8.
        numbers: label and stored kind, (B, 2) int64.
        faces: the bytes about each face, (B, 48) uint8.
        status: `GOOD` or one of `FAULTS`, (B,) uint8; good where nothing is read.
    """

    pixels: npt.NDArray[np.uint8]
    numbers: Numbers
    faces: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]

    @classmethod
    def empty(cls, rows: int, side: int) -> Self:
        """Memory for so many; black where nothing is read."""
        return cls(
            np.zeros((rows, side, side, 3), np.uint8),
            np.zeros((rows, 2), np.int64),
            np.zeros((rows, FACE_BYTES), np.uint8),
            np.full(rows, GOOD, np.uint8),
        )


class Pass(Protocol):
    """Batches of one request, being read."""

    def __iter__(self) -> Iterator[PairBatch]: ...

    def __next__(self) -> PairBatch: ...

    def close(self) -> None:
        """Stops; no thread of the pass is left."""


class Reader(Protocol):
    """Reads pairs of one pack in any order asked for."""

    def start(self, batches: Iterator[Keys]) -> Pass:
        """Begins to read ``batches``, each row changed as its epoch says; without end if they are.

        Args:
            batches: epoch and pair of each row, (B, 2); taken as they are decoded, by a thread.
        """

    def close(self) -> None:
        """Lets go of the files and of every thread."""


def corrupt(index: PackIndex, pair: int, which: int, status: int) -> UserError:
    """The error for an image that cannot be trusted."""
    shard, number = index.shard_of(pair)
    return UserError(
        f"{shard.path}: {('first', 'second')[which]} image of pair {number} is corrupt:"
        f" {FAULTS[status]}",
        fix="restore the file from a copy, or pack again",
    )


def raise_if_corrupt(index: PackIndex, ids: Numbers, statuses: npt.NDArray[np.uint8]) -> None:
    """Raises for the first image whose status is not good.

    Args:
        index: of the pack.
        ids: pairs of the batch, (B,).
        statuses: of the images read of each, (B, 2) or (B, 1).
    """
    if statuses.any():
        row, which = np.argwhere(statuses)[0].tolist()
        raise corrupt(index, int(ids[row]), which, int(statuses[row, which]))
