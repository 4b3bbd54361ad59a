"""Some of the classes for a step: those of its batch, and others drawn at random.

A head of millions of identities learns from a step about all of them, though most are only told
that they are not meant. Partial FC (An et al., "Partial FC: Training 10 Million Identities on a
Single Machine", 2021) leaves most of those out: each rank takes the classes of the batch that it
owns, and fills up with others of its own until it has its share.

The classes of the batch come first, in their order. So every rank can tell from the labels alone
how many classes each rank has taken and what number each label has among them.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch

from distill.errors import UserError
from distill.heads.rows import ClassRanges


class Selection(NamedTuple):
    """The classes that a step is about.

    Attributes:
        bounds: number of the first class of each rank among them, and how many there are.
        rows: rows of this rank's part of the head, in the order of those numbers; None for all.
        labels: the labels given, as numbers among them; -1 stays.
    """

    bounds: tuple[int, ...]
    rows: torch.Tensor | None
    labels: torch.Tensor


def everything(labels: torch.Tensor, ranges: ClassRanges) -> Selection:
    """All classes, as they are."""
    return Selection(ranges.bounds, None, labels)


def sampled(labels: torch.Tensor, ranges: ClassRanges, rate: float, seed: int) -> Selection:
    """The classes of ``labels``, and others up to ``ceil(rate * classes of a rank)`` on each rank.

    Args:
        labels: labels of the step on all ranks, int64 of any shape, -1 for none; alike everywhere.
        ranges: who owns what.
        rate: share of the classes, in (0, 1).
        seed: of this rank in this step.

    Raises:
        UserError: a label is beyond the classes.
    """
    known: torch.Tensor = torch.unique(labels[labels >= 0])
    _check(known, ranges.classes)
    cuts = torch.tensor(ranges.bounds, device=labels.device)
    starts = torch.searchsorted(known, cuts).tolist()
    counts = [
        max(least, starts[rank + 1] - starts[rank])
        for rank, least in enumerate(_fewest_of_ranks(ranges, rate))
    ]
    bounds = [0]
    for count in counts:
        bounds.append(bounds[-1] + count)
    meant = known[slice(*starts[ranges.rank : ranges.rank + 2])] - ranges.mine.start
    others = _drawn(len(ranges.mine), meant, counts[ranges.rank] - len(meant), seed)
    numbers = _renumbered(labels, known, cuts, starts, bounds)
    return Selection(tuple(bounds), torch.cat([meant, others]), numbers)


def fewest_sampled(ranges: ClassRanges, rate: float) -> int:
    """Classes that a step has at least, on all ranks together, at a ``rate`` in (0, 1]."""
    return sum(_fewest_of_ranks(ranges, rate))


def _fewest_of_ranks(ranges: ClassRanges, rate: float) -> list[int]:
    bounds = ranges.bounds
    return [math.ceil(rate * (b - a)) for a, b in itertools.pairwise(bounds)]


def _check(known: torch.Tensor, classes: int) -> None:
    if len(known) and int(known[-1]) >= classes:
        raise UserError(
            f"label {int(known[-1])}: must be below {classes}, the classes of the head",
            fix="train with the pack that the head was made for",
        )


def _drawn(rows: int, meant: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """``count`` of the ``rows`` that are not ``meant``, each set as likely as any, sorted."""
    draw = torch.Generator(meant.device).manual_seed(seed)
    lots = torch.rand(rows, generator=draw, device=meant.device)
    lots[meant] = -1.0
    return lots.topk(count).indices.sort().values


def _renumbered(
    labels: torch.Tensor,
    known: torch.Tensor,
    cuts: torch.Tensor,
    starts: list[int],
    bounds: list[int],
) -> torch.Tensor:
    """Labels as numbers among the classes taken: the owner's first, and the place in its batch."""
    if not len(known):
        return labels
    owner = torch.searchsorted(cuts, labels, right=True) - 1
    shift = torch.tensor(bounds, device=labels.device) - torch.tensor(starts, device=labels.device)
    numbers = torch.searchsorted(known, labels) + shift[owner.clamp_min(0)]
    return torch.where(labels >= 0, numbers, labels)
