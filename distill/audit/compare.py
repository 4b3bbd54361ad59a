"""Cosines of photographs and people to centres, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import torch

from distill.audit.centres import Centres

NUMBERS_AT_ONCE = 1 << 24
"""Cosines, and numbers of centres, in memory at a time: 64 MiB of float32 each."""
PEOPLE_AT_ONCE = 1 << 15
"""Centres that a rank holds while all others pass by: 64 MiB at D = 512. So of two million people
each centre is read thirty times, and not two hundred and fifty."""
BLOCKS_A_RANK = 8
"""Blocks that a rank has at least: with fewer, some ranks would be done long before others."""


def own_cosines(embeddings: torch.Tensor, classes: torch.Tensor, centres: Centres) -> torch.Tensor:
    """Cosines to the sub-centres of the own identity, (N, K) float32, on the CPU.

    Args:
        embeddings: of unit length, (N, D) float32, on the device of ``centres``.
        classes: own identity of each, (N,) int64, on the CPU.
        centres: of all identities; those of the classes at hand are read.
    """
    people, which = torch.unique(classes, return_inverse=True)
    rows = centres.of_classes(people)[which.to(embeddings.device)]
    return torch.einsum("nd,nkd->nk", embeddings, rows).cpu()


class Nearest(NamedTuple):
    """The nearest other identity of N photographs, on the CPU.

    Attributes:
        classes: it, (N,) int64; -1 where there is none.
        cosines: to its nearest sub-centre, (N,) float32.
    """

    classes: torch.Tensor
    cosines: torch.Tensor


def nearest_others(embeddings: torch.Tensor, classes: torch.Tensor, centres: Centres) -> Nearest:
    """Compare embeddings with every centre, a range of identities at a time.

    Args:
        embeddings: of unit length, (N, D) float32, on the device of ``centres``.
        classes: own identity of each, (N,) int64, likewise.
        centres: of all identities.
    """
    people, sub_centres, width = centres.shape
    nearest = torch.full_like(classes, -1)
    best = embeddings.new_full((len(classes),), -torch.inf)
    step = max(NUMBERS_AT_ONCE // (sub_centres * max(len(classes), width)), 1)
    for first in range(0, people, step):
        rows = centres.rows(first, min(first + step, people))
        cosines = (embeddings @ rows.flatten(0, 1).T).view(len(classes), len(rows), sub_centres)
        mine = torch.nonzero((classes >= first) & (classes < first + len(rows)))[:, 0]
        cosines[mine, classes[mine] - first] = -torch.inf
        top, arg = cosines.amax(2).max(1)
        better = top > best
        best, nearest = torch.where(better, top, best), torch.where(better, arg + first, nearest)
    return Nearest(nearest.cpu(), best.cpu())


class Alike(NamedTuple):
    """Pairs of identities whose dominant centres are near each other, on the CPU.

    Attributes:
        cosines: of the two, (n,) float32.
        firsts: the lower class, (n,) int64.
        seconds: the other, (n,) int64.
    """

    cosines: torch.Tensor
    firsts: torch.Tensor
    seconds: torch.Tensor

    @classmethod
    def none(cls) -> Self:
        """No pairs."""
        return cls(torch.zeros(0), *torch.zeros(2, 0, dtype=torch.int64))

    @classmethod
    def of_rows(cls, rows: torch.Tensor) -> Self:
        """Pairs from what `rows` makes of them."""
        bits, firsts, seconds = rows.unbind(1)
        return cls(bits.int().view(torch.float32), firsts, seconds)

    @property
    def rows(self) -> torch.Tensor:
        """One row a pair, (n, 3) int64, with the bits of its cosine: what ranks send."""
        bits = self.cosines.view(torch.int32).long()
        return torch.stack([bits, self.firsts, self.seconds], 1)

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """The pairs of all parts, one after the other."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def nearest(self, limit: int) -> Self:
        """At most ``limit`` of them, the nearest first, equal ones by class."""
        order = torch.arange(len(self.cosines))
        for key in (self.seconds, self.firsts, -self.cosines):
            order = order[key[order].argsort(stable=True)]
        order = order[:limit]
        return type(self)(*(column[order] for column in self))


def alike(
    centres: Centres,
    classes: torch.Tensor,
    sub_centres: torch.Tensor,
    *,
    least_cosine: float,
    rank: int,
    world_size: int,
    limit: int,
    advance: Callable[[int], None] = lambda people: None,
) -> Alike:
    """The pairs of identities with a cosine over ``least_cosine`` that this rank looks at.

    Over all ranks every pair of the identities is looked at once. Where nearly all are near each
    other, no more than some ``limit`` and a block of them are ever in memory.

    Args:
        centres: of all identities.
        classes: identities to compare, rising, (n,) int64.
        sub_centres: the dominant one of each, (n,) int64.
        least_cosine: of a pair that is listed.
        rank: of this process.
        world_size: ranks.
        limit: most pairs that are kept, the nearest ones.
        advance: told the number of identities that have been compared with all after them.

    Returns:
        Nearest first; equal ones by class.
    """
    side = min(PEOPLE_AT_ONCE, -(-len(classes) // (BLOCKS_A_RANK * world_size)))
    step = max(NUMBERS_AT_ONCE // max(side, centres.shape[2]), 1)
    found = Alike.none()
    for start in range(rank * side, len(classes), max(world_size * side, 1)):
        mine = slice(start, start + side)
        rows = centres.chosen(classes[mine], sub_centres[mine])
        for other in range(start, len(classes), step):
            columns = slice(other, other + step)
            cosines = rows @ centres.chosen(classes[columns], sub_centres[columns]).T
            near = cosines > least_cosine
            if other < start + side:  # each pair once, and nobody with themselves
                near.triu_(start - other + 1)
            one, two = torch.nonzero(near, as_tuple=True)
            values, one, two = cosines[one, two].cpu(), one.cpu() + start, two.cpu() + other
            part = Alike(values, classes[one], classes[two])
            found = Alike.joined([found, part])
            if len(found.cosines) > 2 * limit:
                found = found.nearest(limit)
                least_cosine = max(least_cosine, _just_below(found.cosines[-1]))
        advance(len(rows))
    return found.nearest(limit)


def _just_below(cosine: torch.Tensor) -> float:
    """What is equal to the last of those kept may still come before it, by class."""
    return float(torch.nextafter(cosine, torch.tensor(-torch.inf)))
