"""The vision transformers of InsightFace's arcface_torch, which its best WebFace42M models are.

Source: its `backbones/vit.py` and `backbones/__init__.py` (2026-07-27). Patches of 9 pixels make
144 tokens of a 112x112 face, and nothing of its last four rows and columns. The embedding comes
from all tokens side by side through two linear layers, not from their mean.

In training a tenth of the tokens of each image, drawn anew for each, is taken away before the
layers, and a learned token stands in those places behind them (He et al., "Masked Autoencoders Are
Scalable Vision Learners", 2022, which goes further). A name says ``mask_005`` where its
configuration asks for a twentieth: there its code takes a tenth all the same, and so does this.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from distill.data.batch import IMAGE_SIZE
from distill.models.vit import Layer, init_truncated_normal

PATCH = 9
TOKENS = (IMAGE_SIZE // PATCH) ** 2
HEADS = 8
HIDDEN_SHARE = 0.1
SEEN_TOKENS = int(TOKENS * (1 - HIDDEN_SHARE))
"""Of an image, where some are hidden."""
EMBEDDING_EPS = 2e-5


class Variant(NamedTuple):
    """A network: numbers of a token, layers, drop path of the last one, and whether tokens hide."""

    width: int
    depth: int
    drop_path: float
    hides: bool


VARIANTS = {
    "insight_vit_t": Variant(256, 12, 0.1, True),
    "insight_vit_t_dp005_mask0": Variant(256, 12, 0.05, False),
    "insight_vit_s": Variant(512, 12, 0.1, True),
    "insight_vit_s_dp005_mask_0": Variant(512, 12, 0.05, False),
    "insight_vit_b": Variant(512, 24, 0.1, True),
    "insight_vit_b_dp005_mask_005": Variant(512, 24, 0.05, True),
    "insight_vit_l_dp005_mask_005": Variant(768, 24, 0.05, True),
    "insight_vit_h": Variant(1024, 48, 0.1, False),
}


class InsightVit(nn.Module):
    """Images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D).

    Args:
        variant: which one.
        embedding_dim: D.
        dropout: before the first of the two linear layers at the end.
    """

    def __init__(self, variant: Variant, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        width, depth = variant.width, variant.depth
        self.hides = variant.hides
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.positions = nn.Parameter(torch.empty(1, TOKENS, width))
        rates = [variant.drop_path * layer / (depth - 1) for layer in range(depth)]
        self.layers = nn.Sequential(
            *(Layer(width, HEADS, nn.ReLU6, bias=False, drop_path=rate) for rate in rates)
        )
        self.norm = nn.LayerNorm(width)
        self.embedding = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(TOKENS * width, width, bias=False),
            nn.BatchNorm1d(width, eps=EMBEDDING_EPS),
            nn.Linear(width, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim, eps=EMBEDDING_EPS),
        )
        hidden = nn.init.normal_(torch.empty(1, 1, width), std=0.02)
        # Without hidden tokens nothing depends on it, so it is no weight; their files have it.
        if self.hides:
            self.hidden_token = nn.Parameter(hidden)
        else:
            self.register_buffer("hidden_token", hidden)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.apply(init_truncated_normal)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) to (N, D)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        if self.training and self.hides:
            places = seen_places(len(tokens), tokens.device)
            places = places.unsqueeze(2).expand(-1, -1, tokens.shape[2])
            seen = self.norm(self.layers(tokens.gather(1, places)))
            found = self.hidden_token.expand_as(tokens).scatter(1, places, seen)
        else:
            found = self.norm(self.layers(tokens))
        embeddings: torch.Tensor = self.embedding(found.flatten(1))
        return embeddings


def seen_places(images: int, device: torch.device) -> torch.Tensor:
    """Which tokens of each image are seen, from torch's global generator: (N, SEEN_TOKENS) int64.

    They are in any order: without a mask attention knows none, and positions are added before.
    """
    order = torch.rand(images, TOKENS, device=device).argsort(dim=1, stable=True)
    return order[:, :SEEN_TOKENS]
