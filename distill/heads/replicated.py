"""Heads whose whole weight stands on every rank (as far as ZeRO leaves it there)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LinearHead(nn.Module):
    """Embeddings (N, D) to logits (N, C) by weight and bias; the logits are float32 or wider."""

    def __init__(self, embedding_dim: int, classes: int) -> None:
        super().__init__()
        self.scale = 1.0
        self.linear = nn.Linear(embedding_dim, classes)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores (N, C), which are the logits."""
        return at_least_float32(self.linear(embeddings))


class CosineHead(nn.Module):
    """Embeddings (N, D) to scores (N, C), the cosines with the weight of each class.

    The logits are scale * cosine; the loss applies the scale, and margins to the own class.
    Cosines are computed in float32 or wider, inside an autocast region too: at scale 64 a bf16
    cosine is off by up to 0.1 in the logit.

    Args:
        embedding_dim: D.
        classes: C.
        scale: s, the logit of a cosine of one.
    """

    def __init__(self, embedding_dim: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, embedding_dim))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores (N, C), cosines."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return unit(embeddings) @ unit(self.weight).T

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        return f"classes={self.weight.shape[0]}, scale={self.scale}"


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows divided by their length, in float32 or wider."""
    return F.normalize(at_least_float32(rows))


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor widened to float32 if it is narrower."""
    return tensor.float() if torch.finfo(tensor.dtype).bits < 32 else tensor
