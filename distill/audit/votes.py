"""What every photograph says of itself: a few numbers each, in a file of its rank.

Which sub-centre of an identity is dominant is known when all its photographs have been seen, so
their numbers wait on disk: 32 bytes a photograph, and 4 more for each further sub-centre.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distill.audit.centres import Centres
from distill.audit.compare import compared
from distill.data.batch import PairBatch, as_network_input
from distill.data.pack_index import Numbers
from distill.files import disk_errors
from distill.finite import check_finite
from distill.ranks import Ranks, together

PHOTOGRAPHS_AT_ONCE = 1 << 14
"""Embeddings that are compared in one go through the head: 32 MiB at D = 512."""
ROWS_AT_ONCE = 1 << 16

Rows = npt.NDArray[Any]


def row_type(sub_centres: int) -> np.dtype[Any]:
    """Pair and class of a photograph, its cosines, and who else is near."""
    return np.dtype(
        [
            ("pair", "<i8"),
            ("class", "<i8"),
            ("own", "<f4", (sub_centres,)),
            ("nearest", "<i8"),
            ("cosine", "<f4"),
        ]
    )


def seen(
    backbone: torch.nn.Module,
    batches: Iterable[PairBatch],
    classes_of: torch.Tensor,
    centres: Centres,
    advance: Callable[[int], None],
) -> Iterator[Rows]:
    """Rows of `row_type` of this rank's photographs, some thousands at a time.

    Photographs of people whom the head does not know are passed over.

    Raises:
        UserError: embeddings that are not finite, or a corrupt image.
    """
    for pairs, labels, embeddings in _gathered(_embedded(backbone, batches, centres, advance)):
        classes = classes_of[labels]
        known = classes >= 0
        classes = classes[known]
        found = compared(
            embeddings[known.to(embeddings.device)], classes.to(centres.device), centres
        )
        rows = np.empty(len(classes), row_type(centres.shape[1]))
        rows["pair"], rows["class"], rows["own"] = pairs[known], classes, found.own
        rows["nearest"], rows["cosine"] = found.nearest, found.cosine
        yield rows


def _embedded(
    backbone: torch.nn.Module,
    batches: Iterable[PairBatch],
    centres: Centres,
    advance: Callable[[int], None],
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Pairs, labels and embeddings of unit length of each batch."""
    for batch in batches:
        images = as_network_input(batch.first.to(centres.device))
        embeddings = torch.nn.functional.normalize(backbone(images).float())
        check_finite(embeddings, "embeddings", "photographs")
        yield batch.sample_ids, batch.labels, embeddings
        advance(len(batch))


def _gathered(
    batches: Iterable[tuple[torch.Tensor, ...]],
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Several batches as one of at least `PHOTOGRAPHS_AT_ONCE`; the last may be smaller."""
    held: list[tuple[torch.Tensor, ...]] = []
    for batch in batches:
        held.append(batch)
        if sum(len(part[0]) for part in held) >= PHOTOGRAPHS_AT_ONCE:
            yield tuple(map(torch.cat, zip(*held, strict=True)))
            held = []
    if held:
        yield tuple(map(torch.cat, zip(*held, strict=True)))


@contextmanager
def files_beside(out: Path, ranks: Ranks) -> Iterator[list[Path]]:
    """A file for each rank in a folder beside ``out``, which goes with the block.

    What a killed process has left of it is replaced.
    """
    folder = out.with_name(f".{out.name}.parts")
    with together():
        if ranks.is_first:
            with disk_errors(out):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
    try:
        yield [folder / f"rank-{rank:05d}" for rank in range(ranks.world_size)]
    finally:
        if ranks.is_first:
            shutil.rmtree(folder, ignore_errors=True)


def store(rows: Iterable[Rows], path: Path, votes: Numbers) -> None:
    """Write rows to ``path``, and count for which sub-centre each photograph is, in (C, K)."""
    with disk_errors(path), path.open("wb") as file:
        for part in rows:
            np.add.at(votes, (part["class"], part["own"].argmax(1)), 1)
            file.write(part.tobytes())


def stored(paths: Sequence[Path], sub_centres: int) -> Iterator[Rows]:
    """The rows of all ranks in the order of their pairs, some at a time."""
    kind = row_type(sub_centres)
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(ROWS_AT_ONCE * kind.itemsize):
                yield np.frombuffer(data, kind)
