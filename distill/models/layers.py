"""The pieces that several backbones share."""

from __future__ import annotations

import torch
from torch import nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output is the input divided by ``stride``, rounded up."""
    padding = (kernel - 1) // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, act: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation and, where ``act``, a PReLU with one slope a channel."""
    layers: list[nn.Module] = [
        conv(inputs, outputs, kernel, stride, groups),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.PReLU(outputs)] if act else []))


class EmbeddingNorm(nn.Module):
    """Batch normalisation of embeddings with a learned offset and no learned scale.

    ArcFace's public training code fixes that scale at one, since a cosine head divides the
    length out again. Without a parameter for it nothing frozen has to travel through the optimizer.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(embedding_dim, affine=False)
        self.bias = nn.Parameter(torch.zeros(embedding_dim))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, D) to (N, D)."""
        normed: torch.Tensor = self.norm(embeddings)
        return normed + self.bias


def flat_embedding(channels: int, positions: int, dim: int, dropout: float) -> nn.Sequential:
    """ArcFace's BN-Dropout-FC-BN: (N, channels, h, w) with h * w = positions to (N, dim)."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels * positions, dim),
        EmbeddingNorm(dim),
    )


def depthwise_embedding(channels: int, size: int, dim: int, dropout: float) -> nn.Sequential:
    """MobileFaceNet's output: one ``size`` x ``size`` filter a channel, then a linear layer.

    It keeps the weight of each place in the face, as a fully connected layer does, at
    1/dim of its parameters: (N, channels, size, size) to (N, dim).
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, size, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels, dim, bias=False),
        EmbeddingNorm(dim),
    )


def init_convolutions(module: nn.Module) -> None:
    """He's normal initialisation of every convolution (fan-out), from torch's global generator."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
