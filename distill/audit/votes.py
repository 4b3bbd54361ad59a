"""What every photograph says of itself: a few numbers each, in a file of its rank.

Which sub-centre of an identity is dominant is known when all its photographs have been seen, so
their numbers wait on disk: 20 bytes a photograph, and 4 more for each further sub-centre. Those
that are far from it are seen again, and compared with everybody: where there are millions of
identities that is more work than the network, and nobody asks it of a photograph that is not far.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distill.arrays import Numbers
from distill.audit.centres import Centres
from distill.audit.compare import nearest_others, own_cosines
from distill.collectives import together
from distill.data.batch import PairBatch, as_network_input
from distill.files import disk_errors
from distill.finite import check_finite
from distill.locks import alone_at
from distill.ranks import Ranks

PHOTOGRAPHS_AT_ONCE = 1 << 14
"""Embeddings that are compared in one go through the head: 32 MiB at D = 512."""
ROWS_AT_ONCE = 1 << 16

Rows = npt.NDArray[Any]


def row_type(sub_centres: int) -> np.dtype[Any]:
    """Pair and class of a photograph, and its cosines to the sub-centres of that class."""
    return np.dtype([("pair", "<i8"), ("class", "<i8"), ("own", "<f4", (sub_centres,))])


FAR = np.dtype(
    [
        ("pair", "<i8"),
        ("class", "<i8"),
        ("own", "<f4"),
        ("sub_centre", "<i8"),
        ("nearest", "<i8"),
        ("cosine", "<f4"),
    ]
)
"""A photograph that is far: its cosine to the dominant centre, the sub-centre that is nearest, the
nearest other identity and the cosine to that one's nearest sub-centre."""


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
        rows = np.empty(len(classes), row_type(centres.shape[1]))
        rows["pair"], rows["class"] = pairs[known], classes
        rows["own"] = own_cosines(embeddings[known.to(embeddings.device)], classes, centres)
        yield rows


def far_rows(parts: Iterable[Rows], dominant: Numbers, least_cosine: float) -> Rows:
    """The photographs below ``least_cosine`` of what a rank has seen, of `FAR`, (n,).

    Args:
        parts: what was seen.
        dominant: sub-centre of each class, (C,).
        least_cosine: to the dominant centre, of photographs that are not listed.
    """
    found = [np.empty(0, FAR)]
    for part in parts:
        cosines = part["own"][np.arange(len(part)), dominant[part["class"]]]
        far = np.flatnonzero(cosines < least_cosine)
        rows = np.empty(len(far), FAR)
        rows["pair"], rows["class"], rows["own"] = (
            part["pair"][far],
            part["class"][far],
            cosines[far],
        )
        rows["sub_centre"] = part["own"][far].argmax(1)
        found.append(rows)
    return np.concatenate(found)


def with_nearest(
    rows: Rows,
    backbone: torch.nn.Module,
    batches: Iterable[PairBatch],
    centres: Centres,
    advance: Callable[[int], None],
) -> None:
    """Fill in the nearest other identity of photographs that are far.

    Args:
        rows: of `FAR`, (n,).
        backbone: of the network.
        batches: their photographs, in the same order.
        centres: of all identities.
        advance: told the number of photographs of each batch that is done with.

    Raises:
        UserError: a corrupt image.
    """
    at = 0
    for pairs, _, embeddings in _gathered(_embedded(backbone, batches, centres, advance)):
        part = rows[at : at + len(pairs)]
        assert np.array_equal(part["pair"], pairs), "photographs in another order"
        classes = torch.from_numpy(part["class"].copy()).to(embeddings.device)
        found = nearest_others(embeddings, classes, centres)
        part["nearest"], part["cosine"] = found.classes, found.cosines
        at += len(pairs)


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

    What a rank writes of photographs that are far stands beside its file (`far_file`).

    What a killed process has left of it is replaced.

    Raises:
        UserError: another audit writes ``out``, or the disk is full or not writable.
    """
    folder = out.with_name(f".{out.name}.parts")
    with ExitStack() as held:
        with together():
            if ranks.is_first:
                lock = out.with_name(f".{out.name}.lock")
                held.enter_context(alone_at(lock, out, "is writing it"))
                held.callback(shutil.rmtree, folder, ignore_errors=True)
                with disk_errors(out):
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
        yield [folder / f"rank-{rank:05d}" for rank in range(ranks.world_size)]


def far_file(path: Path) -> Path:
    """Where the photographs of a rank that are far stand, by its file."""
    return path.with_suffix(".far")


def store(rows: Iterable[Rows], path: Path, votes: Numbers) -> None:
    """Write rows to ``path``, and count for which sub-centre each photograph is, in (C, K)."""
    with disk_errors(path), path.open("wb") as file:
        for part in rows:
            np.add.at(votes, (part["class"], part["own"].argmax(1)), 1)
            file.write(part.tobytes())


def stored(path: Path, kind: np.dtype[Any]) -> Iterator[Rows]:
    """The rows of a file in their order, some at a time."""
    with path.open("rb") as file:
        while data := file.read(ROWS_AT_ONCE * kind.itemsize):
            yield np.frombuffer(data, kind)
