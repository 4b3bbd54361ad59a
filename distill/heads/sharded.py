"""A head of which each rank has the rows of a range of the classes, and no rank has all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from distill.collectives import all_reduce_max, gather_objects, gathered
from distill.heads.answers import (
    ROWS_AT_ONCE,
    Answers,
    Reduced,
    blocks,
    joined,
    logits_of,
    merged,
    reduced,
    right_logits,
)
from distill.heads.replicated import CosineHead, LinearHead
from distill.heads.rows import ClassRanges


class ShardedHead(nn.Module):
    """This rank's part of a head, and which part it is.

    It stands outside of the engine's network: ZeRO would give every rank the weights of rank 0.

    Args:
        local: a head with the rows of this rank's classes.
        ranges: the classes of all ranks.
    """

    def __init__(self, local: LinearHead | CosineHead, ranges: ClassRanges) -> None:
        super().__init__()
        self.local = local
        self.ranges = ranges

    @property
    def scale(self) -> float:
        """Logits are scores times it."""
        return self.local.scale

    def answers(self, embeddings: torch.Tensor, classes: torch.Tensor) -> Answers:
        """Answers to this rank's N embeddings; every rank must call it, with an N of its own.

        Blocks of the ranks' rows go round; what comes back is a few numbers for each row and rank.

        Args:
            embeddings: (N, D), on any device; N may be 0.
            classes: right class among all, or -1 for none, (N,) int64.
        """
        count = len(embeddings)
        rounds = -(-max(gather_objects(count)) // ROWS_AT_ONCE)
        missing = rounds * ROWS_AT_ONCE - count
        width = self.local.weight.shape[-1]  # a rank without images knows it from here alone
        rows = F.pad(embeddings.reshape(count, width), (0, 0, 0, missing))
        right = F.pad(classes, (0, missing), value=-1)
        parts = [self._block(e, c) for e, c in blocks(rows, right)]
        return Answers(*(one[:count] for one in joined(parts)))

    def _block(self, embeddings: torch.Tensor, classes: torch.Tensor) -> Answers:
        """Answers to one block of each rank's rows, of equal size on all."""
        device = self.local.weight.device
        everyone = gathered(embeddings.to(device)).flatten(0, 1)
        labels = gathered(classes.to(device)).flatten()
        local, mine = self.local, self.ranges.mine
        logits = logits_of(everyone, local.weight, local.bias, local.scale)
        right = all_reduce_max(right_logits(logits, labels, mine))
        told = gathered(torch.stack(reduced(logits, right, mine)))
        own = slice(len(embeddings) * self.ranges.rank, len(embeddings) * (self.ranges.rank + 1))
        parts = Reduced(*told[..., own].unbind(1))
        return merged(parts, right[own], labels[own], self.ranges.classes)
