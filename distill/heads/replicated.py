"""Heads whose whole weight stands on every rank (as far as ZeRO leaves it there)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from distill.heads.margin import Margin

HeadOutput = tuple[torch.Tensor, torch.Tensor | None]
"""Logits (N, C) without margin, and margined target logits (N,) where there is a margin."""


class LinearHead(nn.Module):
    """Embeddings (N, D) to logits (N, C) by weight and bias; the logits are float32 or wider."""

    def __init__(self, embedding_dim: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding_dim, classes)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor | None = None) -> HeadOutput:
        """Logits (N, C); a linear head has no margin, so the second value is None."""
        return at_least_float32(self.linear(embeddings)), None


class CosineHead(nn.Module):
    """Embeddings (N, D) to logits (N, C) = scale * cosine with the weight of each class.

    Cosines and scale are computed in float32 or wider, inside an autocast region too: at scale 64
    a bf16 cosine is off by up to 0.1 in the logit.

    Args:
        embedding_dim: D.
        classes: C.
        scale: s, the logit of a cosine of one.
        margin: makes the own class harder while training; None for no margin.
    """

    def __init__(
        self, embedding_dim: int, classes: int, scale: float, margin: Margin | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, embedding_dim))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor | None = None) -> HeadOutput:
        """Logits (N, C), and where there is a margin and labels are given, target logits (N,).

        Labels of -1 (ignored by the loss) get the target of class 0.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = unit(embeddings) @ unit(self.weight).T
        if self.margin is None or labels is None:
            return self.scale * cosines, None
        own = cosines.gather(1, labels.clamp_min(0)[:, None])[:, 0]
        return self.scale * cosines, self.scale * self.margin(own)

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        return f"classes={self.weight.shape[0]}, scale={self.scale}, margin={self.margin}"


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows divided by their length, in float32 or wider."""
    return F.normalize(at_least_float32(rows))


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor widened to float32 if it is narrower."""
    return tensor.float() if torch.finfo(tensor.dtype).bits < 32 else tensor
