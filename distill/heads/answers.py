"""What a head answers to embeddings: the class, and where the right one stands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import torch

from distill.heads.replicated import at_least_float32, unit

ROWS_AT_ONCE = 64
"""Embeddings (of each rank) whose scores for all classes are in memory at a time."""


class Answers(NamedTuple):
    """What a classifier of C people says of N images, on the CPU.

    Attributes:
        predicted: most probable class, (N,) int64.
        confidence: its probability, (N,) float32.
        places: how many classes are more probable than the right one, (N,) int64; C where the
            classifier does not know the person. Equal logits count against the right class, so a
            constant answer earns nothing.
        probabilities: of the right class, (N,) float32; 0 where it is not known.
    """

    predicted: torch.Tensor
    confidence: torch.Tensor
    places: torch.Tensor
    probabilities: torch.Tensor


class Reduced(NamedTuple):
    """What a range of classes says of N rows, float64.

    Attributes:
        top: largest logit, (N,).
        arg: its class, (N,).
        log_total: log of the sum of exponentials, (N,).
        beaten: how many logits are not below that of the right class, (N,).
    """

    top: torch.Tensor
    arg: torch.Tensor
    log_total: torch.Tensor
    beaten: torch.Tensor


def logits_of(
    embeddings: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Logits (N, C) in float32 or wider, without a normalised copy of the weight.

    Inside an autocast region as well, as those of the heads themselves. Those of a linear head
    where there is a bias (C,), else those of a cosine head. Its weight is (C, D), or (C, K, D) with
    sub-centres: these come one after another, so that two (N, C) are there at most.
    """
    if weight.dim() == 3:
        of_each = (logits_of(embeddings, one, bias, scale) for one in weight.unbind(1))
        return reduce(torch.maximum, of_each)
    with torch.autocast(embeddings.device.type, enabled=False):
        if bias is not None:
            return at_least_float32(torch.addmm(bias, embeddings.to(weight.dtype), weight.T))
        lengths = torch.linalg.vector_norm(weight, dim=1).clamp_min(1e-12)
        return (unit(embeddings).to(weight.dtype) @ weight.T).mul_(scale / lengths)


def right_logits(logits: torch.Tensor, classes: torch.Tensor, mine: range) -> torch.Tensor:
    """Logit of the right class, (N,); -inf where it is none of ``mine``."""
    known = (classes >= mine.start) & (classes < mine.stop)
    column = torch.where(known, classes - mine.start, 0)[:, None]
    return torch.where(known, logits.gather(1, column)[:, 0], -torch.inf)


def reduced(logits: torch.Tensor, right: torch.Tensor, mine: range) -> Reduced:
    """Logits (N, len(mine)) as the few numbers that ranges are merged by."""
    top, arg = logits.max(1)
    # Not `>=`: where a logit is not a number, nothing is below it and the answer is no success.
    beaten = (~(logits < right[:, None])).sum(1)
    found = (top, arg + mine.start, logits.logsumexp(1), beaten)
    return Reduced(*(one.double() for one in found))


def merged(parts: Reduced, right: torch.Tensor, classes: torch.Tensor, count: int) -> Answers:
    """Answers from what W ranges said, (W, N) each; ``count`` is C."""
    known = classes >= 0
    log_total = parts.log_total.logsumexp(0)
    best = parts.top.max(0)
    found = (
        parts.arg.gather(0, best.indices[None])[0].long(),
        (best.values - log_total).exp().float(),
        torch.where(known, parts.beaten.sum(0).long() - 1, count),
        torch.where(known, (right - log_total).exp(), 0.0).float(),
    )
    return Answers(*(one.cpu() for one in found))


def answers_to(logits: torch.Tensor, classes: torch.Tensor) -> Answers:
    """Answers from the logits of all classes, (N, C), and the right class or -1, (N,)."""
    everyone = range(logits.shape[1])
    right = right_logits(logits, classes, everyone)
    parts = Reduced(*(one[None] for one in reduced(logits, right, everyone)))
    return merged(parts, right, classes, logits.shape[1])


def blocks(
    embeddings: torch.Tensor, classes: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of both, `ROWS_AT_ONCE` at a time; one empty block where there are none."""
    for start in range(0, max(len(classes), 1), ROWS_AT_ONCE):
        stop = start + ROWS_AT_ONCE
        yield embeddings[start:stop], classes[start:stop]


def joined(parts: list[Answers]) -> Answers:
    """The rows of all parts, one after the other."""
    return Answers(*(torch.cat(column) for column in zip(*parts, strict=True)))
