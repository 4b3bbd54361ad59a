"""What an exported file computes, and the same by the trained network itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from distill.data.batch import IMAGE_SIZE, as_network_input
from distill.export.wanted import Takes
from distill.heads import CosineHead, LinearHead
from distill.heads.replicated import flat, largest, unit
from distill.models.classifier import PairClassifier
from distill.trained import Trained, TrainedBackbone

IMAGE_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)


class FromBytes(nn.Module):
    """Images (N, 3, 112, 112) uint8 to what the backbone takes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) in [0, 255] to [-1, 1]."""
        return as_network_input(images)


class Probabilities(nn.Module):
    """Embeddings (N, D) to the probabilities of C people, (N, C).

    Rows of a cosine head are divided by their length once, here, not for every image.
    """

    def __init__(self, head: LinearHead | CosineHead) -> None:
        super().__init__()
        self.cosine = isinstance(head, CosineHead)
        self.sub_centres = head.sub_centres if isinstance(head, CosineHead) else 1
        weight = flat(head.weight.detach())
        self.weight = nn.Buffer(unit(weight).mul_(head.scale) if self.cosine else weight)
        self.bias = None if head.bias is None else nn.Buffer(head.bias.detach())

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, D) to (N, C); each row adds up to one."""
        rows = unit(embeddings) if self.cosine else embeddings
        return largest(F.linear(rows, self.weight, self.bias), self.sub_centres).softmax(1)


def network_of(trained: TrainedBackbone, takes: Takes) -> nn.Sequential:
    """Images to probabilities where the head is there, else to embeddings."""
    parts: list[nn.Module] = [FromBytes()] if takes is Takes.UINT8 else []
    parts.append(trained.model.backbone)
    if isinstance(trained, Trained):
        parts.append(Probabilities(trained.model.head))
    return nn.Sequential(*parts).eval().requires_grad_(False)


def random_images(count: int) -> torch.Tensor:
    """The same images every time: (count, 3, 112, 112) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *IMAGE_SHAPE), dtype=torch.uint8, generator=generator)


def as_taken(images: torch.Tensor, takes: Takes) -> torch.Tensor:
    """Images (N, 3, 112, 112) uint8 as an exported file takes them."""
    return images if takes is Takes.UINT8 else as_network_input(images)


@torch.no_grad()
def plainly(trained: TrainedBackbone, images: torch.Tensor) -> torch.Tensor:
    """What the trained network says of images (N, 3, 112, 112) uint8, as `classify` asks it."""
    seen = as_network_input(images)
    if isinstance(trained.model, PairClassifier):
        answers: torch.Tensor = trained.model(seen).logits.softmax(1)
        return answers
    embeddings: torch.Tensor = trained.model.backbone(seen)
    return embeddings
