"""AdaFace's margins, from the length of embeddings: long ones are of images that say much.

    n_hat = clip(h (n - mean) / (std + 0.001), -1, 1)      n: length of the embedding
    angle = -m n_hat          cosine = m + m n_hat         target: cos(theta + angle) - cosine

Kim, Jain and Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022, equations 12
to 14; lengths are held to 0.001 .. 100, and mean and std begin at 20 and 100, as in the authors'
code. No gradient reaches the lengths.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from distill.collectives import all_reduce_sum

SHORTEST, LONGEST = 1e-3, 100.0
FIRST_MEAN, FIRST_STD = 20.0, 100.0
SMALLEST_STD = 1e-3


class NormMargins(NamedTuple):
    """Margins of N images.

    Attributes:
        angle_rad: added to the angle, (N,) in [-m, m].
        cosine: taken off the cosine, (N,) in [0, 2m].
    """

    angle_rad: torch.Tensor
    cosine: torch.Tensor


class AdaFace(nn.Module):
    """Margins of a batch, and the running mean and std of lengths, which are alike on all ranks.

    The two are buffers: they are saved with the network, and go back to what they were where a
    step is skipped. Every batch in training counts, each micro-batch of a step by itself.

    Args:
        margin: m, in [0, pi/2).
        h: share of the range of margins that one std of length takes.
        decay: weight of a batch's mean and std in the running ones, in (0, 1].
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, margin: float, h: float, decay: float) -> None:
        super().__init__()
        self.margin = margin
        self.h = h
        self.decay = decay
        self.register_buffer("mean", torch.tensor(FIRST_MEAN))
        self.register_buffer("std", torch.tensor(FIRST_STD))

    @torch.no_grad()
    def forward(self, embeddings: torch.Tensor) -> NormMargins:
        """Margins of this rank's embeddings, (N, D); every rank must call it (one all-reduce)."""
        rows = embeddings.detach().float()
        lengths = torch.linalg.vector_norm(rows, dim=1).clamp(SHORTEST, LONGEST)
        self._count(lengths)
        by_std = (lengths - self.mean) / (self.std + SMALLEST_STD)
        scaler = (self.h * by_std).clamp(-1.0, 1.0)
        return NormMargins(-self.margin * scaler, self.margin + self.margin * scaler)

    def _count(self, lengths: torch.Tensor) -> None:
        """Take the lengths of all ranks into mean and std; not where one is not a number."""
        values = lengths.double()
        told = torch.stack((torch.ones_like(values), values, values.square())).sum(1)
        count, total, squares = all_reduce_sum(told)
        mean = total / count
        variance = (squares - count * mean.square()) / (count - 1).clamp(min=1)
        for running, new in ((self.mean, mean), (self.std, variance.clamp(min=0).sqrt())):
            moved = torch.lerp(running.double(), new, self.decay)
            running.copy_(torch.where(torch.isfinite(moved), moved, running))

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        return f"margin={self.margin}, h={self.h}, decay={self.decay}"
