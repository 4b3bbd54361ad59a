"""A backbone for phones and CPUs: about a million parameters.

Source: Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on
Mobile Devices", 2018, table 1: inverted residuals of MobileNetV2 with PReLU, early
down-sampling, and a 7x7 depthwise convolution in place of global average pooling.
"""

from __future__ import annotations

import torch
from torch import nn

from distill.models.layers import conv_bn, depthwise_embedding, init_convolutions
from distill.models.recompute import Unit, UnitSequence

# expansion, output channels, repeats, stride of the first repeat
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
FINAL_CHANNELS = 512
FINAL_SIZE = 7


class Bottleneck(Unit):
    """Widen by 1x1, filter by channel, narrow by 1x1; added to the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            conv_bn(inputs, wide, 1),
            conv_bn(wide, wide, 3, stride, groups=wide),
            conv_bn(wide, outputs, 1, act=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        changed: torch.Tensor = self.body(x)
        return x + changed if self.residual else changed


def bottlenecks(inputs: int) -> list[nn.Module]:
    """All bottlenecks of the table, in order."""
    blocks: list[nn.Module] = []
    for expansion, outputs, repeats, stride in BOTTLENECKS:
        for repeat in range(repeats):
            blocks.append(Bottleneck(inputs, outputs, expansion, stride if repeat == 0 else 1))
            inputs = outputs
    return blocks


class MobileFaceNet(nn.Module):
    """Images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D)."""

    def __init__(self, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.stem = UnitSequence(conv_bn(3, 64, 3, 2), conv_bn(64, 64, 3, groups=64))
        self.blocks = nn.Sequential(*bottlenecks(64))
        self.widen = conv_bn(BOTTLENECKS[-1][1], FINAL_CHANNELS, 1)
        self.embedding = depthwise_embedding(FINAL_CHANNELS, FINAL_SIZE, embedding_dim, dropout)
        init_convolutions(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) to (N, D)."""
        embeddings: torch.Tensor = self.embedding(self.widen(self.blocks(self.stem(images))))
        return embeddings
