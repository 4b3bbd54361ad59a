"""Improved residual networks for faces, the backbones that ArcFace is trained with.

Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019,
section 3.1: blocks BN-Conv-BN-PReLU-Conv-BN after Han et al., "Deep Pyramidal Residual
Networks", 2017; a 3x3 stem of stride 1 that suits 112x112 images; output BN-Dropout-FC-BN.
The first stage already halves the image, so the four stages work at 56, 28, 14 and 7 pixels.
"""

from __future__ import annotations

import torch
from torch import nn

from distill.data.batch import IMAGE_SIZE
from distill.models.layers import conv, flat_embedding
from distill.models.recompute import Unit, UnitSequence

WIDTHS = (64, 128, 256, 512)
DEPTHS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}
FINAL_POSITIONS = (IMAGE_SIZE // 16) ** 2


class Block(Unit):
    """BN-Conv-BN-PReLU-Conv-BN beside a shortcut; the second convolution has the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            conv(inputs, outputs, 3),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            conv(outputs, outputs, 3, stride),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        changed: torch.Tensor = self.body(x)
        kept: torch.Tensor = self.shortcut(x)
        return changed + kept


def stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """``blocks`` blocks, the first of which halves the image."""
    return nn.Sequential(
        Block(inputs, outputs, 2), *(Block(outputs, outputs, 1) for _ in range(blocks - 1))
    )


class IResNet(nn.Module):
    """Images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D).

    Args:
        depths: blocks in each of the four stages.
        embedding_dim: D.
        dropout: before the fully connected layer.
    """

    def __init__(self, depths: tuple[int, ...], embedding_dim: int, dropout: float) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.stem = UnitSequence(conv(3, first, 3), nn.BatchNorm2d(first), nn.PReLU(first))
        widths = zip((first, *WIDTHS), WIDTHS, depths, strict=False)
        self.stages = nn.Sequential(*(stage(i, o, n) for i, o, n in widths))
        self.embedding = flat_embedding(WIDTHS[-1], FINAL_POSITIONS, embedding_dim, dropout)
        self.apply(init_small_normal)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) to (N, D)."""
        embeddings: torch.Tensor = self.embedding(self.stages(self.stem(images)))
        return embeddings


def init_small_normal(layer: nn.Module) -> None:
    """Convolutions from N(0, 0.1), as in ArcFace's public training code."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, std=0.1)
