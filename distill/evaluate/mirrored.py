"""Embeddings of the images of a set, and of their mirror images, shared among the ranks.

Images are read and decoded on threads, batches ahead of the network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from distill.collectives import gather_objects
from distill.data.images import Pixels
from distill.data.order import Share, evaluation_slice
from distill.data.protocols.kinds import FaceSet
from distill.models.both_ways import both_ways
from distill.ranks import Ranks

BATCHES_AHEAD = 2
"""Batches whose images are asked for before the network needs them."""

Faces = list[Future[tuple[Pixels, str]]]


class Part(NamedTuple):
    """A batch of a set.

    Attributes:
        numbers: of its images, (N,) int64.
        both: embeddings of the images and of the mirror images, (2, N, D) float32, on the device.
    """

    numbers: torch.Tensor
    both: torch.Tensor


class Totals(NamedTuple):
    """Over all images of a set, and all ranks.

    Attributes:
        mean_length: of the embeddings before they are made unit length, of mirror images too.
        not_found: images in which no face was found.
    """

    mean_length: float
    not_found: int


class Embedder:
    """Runs a backbone over this rank's share of a set, in evaluation mode as it is."""

    def __init__(
        self,
        backbone: nn.Module,
        ranks: Ranks,
        batch_images: int,
        advance: Callable[[int], None],
    ) -> None:
        self.ranks = ranks
        self._backbone, self._batch_images, self._advance = backbone, batch_images, advance
        self._sums = [0.0, 0.0, 0.0]

    def parts(self, found: FaceSet) -> Iterator[Part]:
        """The batches of this rank's share, in order; it may have none.

        Raises:
            UserError: an image cannot be used.
        """
        self._sums = [0.0, 0.0, 0.0]
        share = evaluation_slice(len(found), Share(self.ranks.rank, self.ranks.world_size)).tolist()
        with _ahead(found, share, self._batch_images) as batches:
            for numbers, faces in batches:
                yield Part(torch.tensor(numbers), self._both(faces))
                self._advance(len(numbers))

    def _both(self, faces: Sequence[tuple[Pixels, str]]) -> torch.Tensor:
        """Embeddings of faces and mirrored faces, counted for the totals."""
        pixels = torch.from_numpy(np.stack([rgb for rgb, _ in faces]))
        images = pixels.permute(0, 3, 1, 2).contiguous().to(self.ranks.device)
        with torch.inference_mode():
            both = both_ways(self._backbone, images)
            length = float(both.norm(dim=2).double().sum())
        missed = sum(bool(note) for _, note in faces)
        counted = (length, 2 * len(faces), missed)
        self._sums = [total + more for total, more in zip(self._sums, counted, strict=True)]
        return both

    def totals(self) -> Totals:
        """Of the set gone through last; all ranks call it."""
        length, count, missed = np.sum(gather_objects(self._sums), 0)
        return Totals(float(length / count), int(missed))


@contextmanager
def _ahead(
    found: FaceSet, share: list[int], size: int
) -> Iterator[Iterator[tuple[list[int], list[tuple[Pixels, str]]]]]:
    """Batches of a share with their faces; threads, as many as torch has, end with the block."""
    with ThreadPoolExecutor(torch.get_num_threads(), "pairdistill-faces") as pool:
        try:
            yield _batches(pool, found, share, size)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batches(
    pool: ThreadPoolExecutor, found: FaceSet, share: list[int], size: int
) -> Iterator[tuple[list[int], list[tuple[Pixels, str]]]]:
    asked: deque[tuple[list[int], Faces]] = deque()
    for start in range(0, len(share), size):
        numbers = share[start : start + size]
        asked.append((numbers, [pool.submit(found.face, number) for number in numbers]))
        if len(asked) > BATCHES_AHEAD:
            yield _arrived(*asked.popleft())
    while asked:
        yield _arrived(*asked.popleft())


def _arrived(numbers: list[int], faces: Faces) -> tuple[list[int], list[tuple[Pixels, str]]]:
    return numbers, [face.result() for face in faces]
