"""Images as they are and mirrored: evaluations of others add up what a backbone makes of both."""

from __future__ import annotations

import torch
from torch import nn

from distill.data.batch import as_network_input


def both_ways(backbone: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Embeddings of images and of their mirror images, not of unit length.

    Args:
        backbone: images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D).
        images: (N, 3, 112, 112) uint8, where the backbone is.

    Returns:
        (2, N, D) float32.
    """
    turned = (images, images.flip(3))
    return torch.stack([backbone(as_network_input(each)).float() for each in turned])
