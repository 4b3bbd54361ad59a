"""The pieces that several backbones share."""

from __future__ import annotations

from collections.abc import Callable

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


class DropPath(nn.Module):
    """In training, nothing in place of some images, and the others so much larger.

    Behind a branch that is added to its input: that branch is left out for those images.
    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016, drawn for each image. From
    torch's global generator, as dropout.

    Args:
        rate: probability that an image is left out, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, ...) to the same."""
        if not self.training or self.rate == 0.0:
            return x
        kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1.0 - self.rate)
        return x * (kept / (1.0 - self.rate))


def flat_embedding(channels: int, positions: int, dim: int, dropout: float) -> nn.Sequential:
    """ArcFace's BN-Dropout-FC-BN: (N, channels, h, w) with h * w = positions to (N, dim)."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels * positions, dim),
        EmbeddingNorm(dim),
    )


def depthwise_embedding(
    channels: int,
    size: int,
    dim: int,
    dropout: float,
    norm: Callable[[int], nn.Module] = EmbeddingNorm,
) -> nn.Sequential:
    """MobileFaceNet's output: one ``size`` x ``size`` filter a channel, then a linear layer.

    It keeps the weight of each place in the face, as a fully connected layer does, at
    1/dim of its parameters: (N, channels, size, size) to (N, dim), which ``norm`` takes.
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, size, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels, dim, bias=False),
        norm(dim),
    )


def init_convolutions(module: nn.Module, *, linear: bool = False) -> None:
    """He's normal initialisation of every convolution (fan-out), from torch's global generator.

    With ``linear`` of linear layers too.
    """
    kinds = nn.Conv2d | nn.Linear if linear else nn.Conv2d
    for layer in module.modules():
        if isinstance(layer, kinds):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
