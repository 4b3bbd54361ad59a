"""Backbones for phones and CPUs, of which that of the paper has about a million parameters.

Source: Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on
Mobile Devices", 2018, table 1: inverted residuals of MobileNetV2 with PReLU, early
down-sampling, and a 7x7 depthwise convolution in place of global average pooling.

Those of InsightFace's arcface_torch (its `backbones/mobilefacenet.py`, 2026-07-27) filter as many
channels as the paper's, but have two and four times as many between the bottlenecks, and a scale
behind the embedding; the larger one is deeper too. Names and weights of theirs: docs/arcface.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from distill.models.layers import (
    EmbeddingNorm,
    conv_bn,
    depthwise_embedding,
    init_convolutions,
)
from distill.models.recompute import Unit, UnitSequence

FINAL_CHANNELS = 512
FINAL_SIZE = 7
GROUPS = 64
"""Of the 3x3 convolution that the stem ends with: in the paper as many as it has channels."""


class Row(NamedTuple):
    """Bottlenecks of a table: channels that they filter and put out, how many, the first stride."""

    wide: int
    outputs: int
    repeats: int
    stride: int


class Table(NamedTuple):
    """A network: channels of its stem, whether that has a second convolution, and bottlenecks."""

    stem: int
    filtered: bool
    rows: tuple[Row, ...]


PAPER = Table(
    64, True, (Row(128, 64, 5, 2), Row(256, 128, 7, 2), Row(512, 128, 1, 2), Row(256, 128, 2, 1))
)
INSIGHT = {
    "insight_mbf": Table(
        128,
        True,
        (Row(128, 128, 5, 2), Row(256, 256, 7, 2), Row(512, 256, 1, 2), Row(256, 256, 2, 1)),
    ),
    "insight_mbf_large": Table(
        256,
        False,
        (
            Row(128, 256, 2, 1),
            Row(128, 256, 9, 2),
            Row(256, 512, 13, 2),
            Row(512, 512, 1, 2),
            Row(256, 512, 4, 1),
        ),
    ),
}


class Bottleneck(Unit):
    """Widen by 1x1, filter by channel, narrow by 1x1; added to the input where shapes allow."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int) -> None:
        super().__init__()
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


def bottlenecks(table: Table) -> list[nn.Module]:
    """All bottlenecks of the table, in order."""
    blocks: list[nn.Module] = []
    inputs = table.stem
    for wide, outputs, repeats, stride in table.rows:
        for repeat in range(repeats):
            blocks.append(Bottleneck(inputs, wide, outputs, stride if repeat == 0 else 1))
            inputs = outputs
    return blocks


class MobileFaceNet(nn.Module):
    """Images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D).

    Args:
        embedding_dim: D.
        dropout: before the linear layer.
        table: the network; with another one than the paper's, the end and the first weights are
            those of arcface_torch.
    """

    def __init__(self, embedding_dim: int, dropout: float, table: Table = PAPER) -> None:
        super().__init__()
        stem = [conv_bn(3, table.stem, 3, 2)]
        if table.filtered:
            stem.append(conv_bn(table.stem, table.stem, 3, groups=GROUPS))
        self.stem = UnitSequence(*stem)
        self.blocks = nn.Sequential(*bottlenecks(table))
        self.widen = conv_bn(table.rows[-1].outputs, FINAL_CHANNELS, 1)
        norm = EmbeddingNorm if table is PAPER else nn.BatchNorm1d
        self.embedding = depthwise_embedding(
            FINAL_CHANNELS, FINAL_SIZE, embedding_dim, dropout, norm
        )
        init_convolutions(self, linear=table is not PAPER)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) to (N, D)."""
        embeddings: torch.Tensor = self.embedding(self.widen(self.blocks(self.stem(images))))
        return embeddings
