"""What a reader is: the small interface behind which FFCV, or plain Python, decodes pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from distill.data.augment import Amplitudes, Numbers
from distill.data.batch import PairBatch
from distill.data.beton_index import BetonIndex
from distill.data.order import Indices
from distill.errors import UserError

FAULTS = {1: "its bytes are not those that were packed", 2: "it is not a readable JPEG"}
"""Meaning of the status of an image that is not good (`kernels.ALTERED`, `kernels.UNDECODABLE`)."""


class ReaderOptions(NamedTuple):
    """How a reader reads.

    Attributes:
        batch_pairs: pairs of a batch B; the last batch of a pass may be smaller.
        seed: of the changes.
        amplitudes: of the changes.
        threads: decoding threads.
        ahead: batches decoded ahead of the consumer.
    """

    batch_pairs: int
    seed: int
    amplitudes: Amplitudes
    threads: int = 1
    ahead: int = 2


class Pass(Protocol):
    """One pass over some pairs, being read."""

    @property
    def drained(self) -> bool:
        """Whether everything is decoded and waits for the consumer."""

    def __iter__(self) -> Iterator[PairBatch]: ...

    def __next__(self) -> PairBatch: ...

    def close(self) -> None:
        """Stops; no thread of the pass is left."""


class Reader(Protocol):
    """Reads pairs of one pack in any order asked for."""

    def start(self, epoch: int, ids: Indices) -> Pass:
        """Begins a pass over ``ids``, changed as ``epoch`` says; several may be under way."""

    def close(self) -> None:
        """Lets go of the file and of every thread."""


def packed_crcs(index: BetonIndex, ids: Numbers, which: int) -> Numbers:
    """CRC-32 that the images had when they were packed, (B,) int64."""
    return (index.samples["checksum"][ids] >> (32 * which)) & 0xFFFFFFFF


def corrupt(path: Path, sample: int, which: int, status: int) -> UserError:
    """The error for an image that cannot be trusted."""
    side = ("first", "second")[which]
    return UserError(
        f"{path}: {side} image of pair {sample} is corrupt: {FAULTS[status]}",
        fix="restore the file from a copy, or pack again",
    )


def raise_if_corrupt(path: Path, ids: Numbers, statuses: tuple[npt.NDArray[np.uint8], ...]) -> None:
    """Raises for the first image whose status is not good.

    Args:
        ids: pairs of the batch, (B,).
        statuses: of the first and of the second images, (B,) each.
    """
    for which, status in enumerate(statuses):
        if status.any():
            row = int(np.flatnonzero(status)[0])
            raise corrupt(path, int(ids[row]), which, int(status[row]))
