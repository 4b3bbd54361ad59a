"""Cosines of many photographs or people to all centres, in blocks of bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import torch

from distill.audit.centres import Centres

NUMBERS_AT_ONCE = 1 << 24
"""Cosines, and numbers of centres, in memory at a time: 64 MiB of float32 each."""


class Compared(NamedTuple):
    """What N embeddings have to do with all centres, on the CPU.

    Attributes:
        own: cosines to the sub-centres of the own identity, (N, K) float32.
        nearest: other identity with the nearest sub-centre, (N,) int64; -1 where there is none.
        cosine: to that, (N,) float32.
    """

    own: torch.Tensor
    nearest: torch.Tensor
    cosine: torch.Tensor


def compared(embeddings: torch.Tensor, classes: torch.Tensor, centres: Centres) -> Compared:
    """Compare embeddings with every centre, a range of identities at a time.

    Args:
        embeddings: of unit length, (N, D) float32, on the device of ``centres``.
        classes: own identity of each, (N,) int64, likewise.
        centres: of all identities.
    """
    people, sub_centres, width = centres.shape
    own = embeddings.new_zeros(len(classes), sub_centres)
    nearest = torch.full_like(classes, -1)
    best = embeddings.new_full((len(classes),), -torch.inf)
    step = max(NUMBERS_AT_ONCE // (sub_centres * max(len(classes), width)), 1)
    for first in range(0, people, step):
        rows = centres.rows(first, min(first + step, people))
        cosines = (embeddings @ rows.flatten(0, 1).T).view(len(classes), len(rows), sub_centres)
        mine = torch.nonzero((classes >= first) & (classes < first + len(rows)))[:, 0]
        own[mine] = cosines[mine, classes[mine] - first]
        cosines[mine, classes[mine] - first] = -torch.inf
        top, arg = cosines.amax(2).max(1)
        better = top > best
        best, nearest = torch.where(better, top, best), torch.where(better, arg + first, nearest)
    return Compared(own.cpu(), nearest.cpu(), best.cpu())


class Alike(NamedTuple):
    """Two identities whose dominant centres are near each other.

    Attributes:
        cosine: of the two.
        first: the lower class.
        second: the other.
    """

    cosine: float
    first: int
    second: int


def alike(
    centres: Centres,
    classes: torch.Tensor,
    sub_centres: torch.Tensor,
    *,
    least_cosine: float,
    rank: int,
    world_size: int,
    limit: int,
) -> list[Alike]:
    """The pairs of identities with a cosine over ``least_cosine`` that this rank looks at.

    Over all ranks every pair of the identities is looked at once.

    Args:
        centres: of all identities.
        classes: identities to compare, rising, (n,) int64.
        sub_centres: the dominant one of each, (n,) int64.
        least_cosine: of a pair that is listed.
        rank: of this process.
        world_size: ranks.
        limit: most pairs that are kept, the nearest ones.

    Returns:
        Nearest first; equal ones by class.
    """
    side = max(min(NUMBERS_AT_ONCE // centres.shape[2], 4096), 1)
    found: list[Alike] = []
    for start in range(rank * side, len(classes), world_size * side):
        rows = centres.chosen(classes[start : start + side], sub_centres[start : start + side])
        for other in range(start, len(classes), side):
            stop = other + side
            columns = rows
            if other != start:
                columns = centres.chosen(classes[other:stop], sub_centres[other:stop])
            cosines = rows @ columns.T
            if other == start:  # each pair once, and nobody with themselves
                cosines = cosines.triu(1) - torch.ones_like(cosines).tril() * 2
            places = torch.nonzero(cosines > least_cosine)
            values = cosines[places[:, 0], places[:, 1]].tolist()
            firsts = classes[places[:, 0].cpu() + start].tolist()
            seconds = classes[places[:, 1].cpu() + other].tolist()
            found += map(Alike, values, firsts, seconds)
            if len(found) > 2 * limit:
                found = nearest_first(found)[:limit]
    return nearest_first(found)[:limit]


def nearest_first(found: list[Alike]) -> list[Alike]:
    """Sorted by falling cosine, equal ones by class."""
    return sorted(found, key=lambda pair: (-pair.cosine, pair.first, pair.second))
