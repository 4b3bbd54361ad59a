"""A backbone for the demonstration and the tests: learns ten people on a laptop's CPU in a minute.

Nearly all its arithmetic happens at 14x14 and 7x7 pixels, behind a stem that takes 4x4 pixels
a step: two plain residual stages then cost about 12 million multiplications an image.
"""

from __future__ import annotations

import torch
from torch import nn

from distill.models.layers import conv_bn, depthwise_embedding, init_convolutions
from distill.models.recompute import Unit, UnitSequence

WIDTHS = (24, 48, 96)
FINAL_SIZE = 7


class Residual(Unit):
    """Halve the image, then add a 3x3 convolution of it to itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = conv_bn(inputs, outputs, 3, 2)
        self.body = conv_bn(outputs, outputs, 3, act=False)
        self.act = nn.PReLU(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, h, w) to (N, outputs, h / 2, w / 2)."""
        halved: torch.Tensor = self.down(x)
        result: torch.Tensor = self.act(halved + self.body(halved))
        return result


class Tiny(nn.Module):
    """Images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D), with 0.2 M parameters."""

    def __init__(self, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        stem, middle, last = WIDTHS
        self.stem = UnitSequence(*conv_bn(3, stem, 5, 4))
        self.stages = nn.Sequential(Residual(stem, middle), Residual(middle, last))
        self.embedding = depthwise_embedding(last, FINAL_SIZE, embedding_dim, dropout)
        init_convolutions(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) to (N, D)."""
        embeddings: torch.Tensor = self.embedding(self.stages(self.stem(images)))
        return embeddings
