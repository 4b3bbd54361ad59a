"""A small vision transformer on aligned faces.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021 (pre-norm encoder, learned
positions) in the width, depth and heads of DeiT-S (Touvron et al., 2021). Patches of 8 pixels make
196 tokens of a 112x112 face; the embedding comes from their mean, so there is no class token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from distill.data.batch import IMAGE_SIZE
from distill.models.layers import DropPath, EmbeddingNorm
from distill.models.recompute import Unit

PATCH = 8
TOKENS = (IMAGE_SIZE // PATCH) ** 2
WIDTH = 384
DEPTH = 12
HEADS = 6


class Attention(nn.Module):
    """Multi-head self-attention over tokens, (N, tokens, width) to the same."""

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Every token asks every other one."""
        n, tokens, width = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, tokens, width))
        return result


class Layer(Unit):
    """Attention and a two-layer perceptron, each behind a layer norm and added to its input.

    Args:
        width: numbers of a token.
        heads: of the attention.
        act: between the two layers of the perceptron.
        bias: of what the attention makes of tokens.
        drop_path: probability that an image goes without one of the two in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        act: Callable[[], nn.Module] = nn.GELU,
        *,
        bias: bool = True,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(width), Attention(width, heads, bias=bias), DropPath(drop_path)
        )
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            act(),
            nn.Linear(4 * width, width),
            DropPath(drop_path),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, tokens, width) to the same."""
        x = x + self.attention(x)
        result: torch.Tensor = x + self.perceptron(x)
        return result


class VisionTransformer(nn.Module):
    """Images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D)."""

    def __init__(self, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
        self.layers = nn.Sequential(*(Layer(WIDTH, HEADS) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.embedding = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(WIDTH, embedding_dim), EmbeddingNorm(embedding_dim)
        )
        self.apply(init_truncated_normal)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) to (N, D)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        embeddings: torch.Tensor = self.embedding(self.norm(self.layers(tokens)).mean(1))
        return embeddings


def init_truncated_normal(layer: nn.Module) -> None:
    """Linear layers from a normal of 0.02 cut at two units, biases at zero, as in DeiT."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
