"""Heads as modules: the weight of all classes, or of a range of them.

A head gives scores; or it lends its weight to a function of the embeddings that needs no scores of
all classes at once. That function runs inside of the head's forward pass, where ZeRO has made the
weight whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from distill.heads.rows import draw_rows

Use = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], Any]
"""A function of embeddings (N, D), weight (C, D) or (C, K, D), and bias (C,) or None."""


class _Linear(nn.Linear):
    """`nn.Linear` whose rows are drawn in blocks, and which lends its weight."""

    def __init__(self, embedding_dim: int, classes: int, keep: range) -> None:
        with torch.device("meta"):  # nothing is drawn twice
            super().__init__(embedding_dim, len(keep))
        bound = 1.0 / math.sqrt(embedding_dim)
        fill = partial(nn.init.kaiming_uniform_, a=math.sqrt(5))  # as `nn.Linear` does
        self.weight = nn.Parameter(draw_rows(fill, classes, embedding_dim, keep))
        bias = draw_rows(partial(nn.init.uniform_, a=-bound, b=bound), classes, 1, keep)
        self.bias = nn.Parameter(bias[:, 0].contiguous())

    def forward(self, embeddings: torch.Tensor, use: Use | None = None) -> Any:
        if use is not None:
            return use(embeddings, self.weight, self.bias)
        return super().forward(embeddings)


class LinearHead(nn.Module):
    """Embeddings (N, D) to logits (N, C) by weight and bias; the logits are float32 or wider.

    Args:
        embedding_dim: D.
        classes: C.
        keep: the classes whose rows it has; all by default.
    """

    def __init__(self, embedding_dim: int, classes: int, keep: range | None = None) -> None:
        super().__init__()
        self.scale = 1.0
        self.linear = _Linear(embedding_dim, classes, range(classes) if keep is None else keep)

    @property
    def weight(self) -> torch.Tensor:
        """(C, D)."""
        return self.linear.weight

    @property
    def bias(self) -> torch.Tensor:
        """(C,)."""
        return self.linear.bias

    def forward(self, embeddings: torch.Tensor, use: Use | None = None) -> Any:
        """Scores (N, C), which are the logits; or what ``use`` makes of embeddings and weight."""
        found = self.linear(embeddings, use)
        return found if use is not None else at_least_float32(found)


class CosineHead(nn.Module):
    """Embeddings (N, D) to scores (N, C), the cosines with the weight of each class.

    The logits are scale * cosine; the loss applies the scale, and margins to the own class.
    Cosines are computed in float32 or wider, inside an autocast region too: at scale 64 a bf16
    cosine is off by up to 0.1 in the logit.

    With K > 1 sub-centres a class has K weights, side by side, and its score is the largest of its
    K cosines; the gradient goes to that sub-centre alone, of equal ones to the first (Deng et al.,
    "Sub-center ArcFace", ECCV 2020). The weight is then (C, K, D): what cuts it by classes, for
    shards, samples and checkpoints, needs to know nothing of K.

    Args:
        embedding_dim: D.
        classes: C.
        scale: s, the logit of a cosine of one.
        keep: the classes whose rows it has; all by default.
        sub_centres: K.
    """

    bias: None = None

    def __init__(
        self,
        embedding_dim: int,
        classes: int,
        scale: float,
        keep: range | None = None,
        sub_centres: int = 1,
    ) -> None:
        super().__init__()
        keep = range(classes) if keep is None else keep
        fill = partial(nn.init.normal_, std=0.01)
        rows = range(keep.start * sub_centres, keep.stop * sub_centres)
        drawn = draw_rows(fill, classes * sub_centres, embedding_dim, rows)
        self.weight = nn.Parameter(
            drawn if sub_centres == 1 else drawn.view(-1, sub_centres, embedding_dim)
        )
        self.sub_centres = sub_centres
        self.scale = scale

    def forward(self, embeddings: torch.Tensor, use: Use | None = None) -> Any:
        """Scores (N, C), cosines; or what ``use`` makes of embeddings and weight."""
        if use is not None:
            return use(embeddings, self.weight, None)
        with torch.autocast(embeddings.device.type, enabled=False):
            return largest(unit(embeddings) @ flat(unit(self.weight)).T, self.sub_centres)

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        more = f", sub_centres={self.sub_centres}" if self.sub_centres > 1 else ""
        return f"classes={self.weight.shape[0]}, scale={self.scale}{more}"


def flat(weight: torch.Tensor) -> torch.Tensor:
    """A weight (C, D) as it is, and (C, K, D) as (C K, D); a view where it is contiguous."""
    return weight.flatten(0, -2)


def largest(scores: torch.Tensor, sub_centres: int) -> torch.Tensor:
    """Scores (N, C) of those with each sub-centre, (N, C K)."""
    if sub_centres == 1:
        return scores
    of_classes = scores.view(-1, scores.shape[1] // sub_centres, sub_centres)
    return of_classes.max(2).values  # not `amax`, which shares a gradient out among equal ones


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows (..., D) divided by their length, in float32 or wider."""
    return F.normalize(at_least_float32(rows), dim=-1)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor widened to float32 if it is narrower."""
    return tensor.float() if torch.finfo(tensor.dtype).bits < 32 else tensor
