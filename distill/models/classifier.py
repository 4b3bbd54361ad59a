"""The one network: a backbone, and a head on its embeddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from distill.config.tree import Config
from distill.errors import UserError
from distill.heads import build_head
from distill.models.registry import build_backbone


class ClassifierOutput(NamedTuple):
    """What the classifier says of N images.

    Attributes:
        embeddings: (N, D), as the backbone gives them (not of unit length).
        logits: (N, C), scaled and free of margins, float32 or wider.
        targets: (N,) logits of the own class with the margin, for the cross-entropy alone;
            None where there is no margin or no labels were given.
    """

    embeddings: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor | None


class PairClassifier(nn.Module):
    """Images to identities. Both images of a pair go through it as one concatenated batch."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> ClassifierOutput:
        """Classify images.

        Args:
            images: (N, 3, 112, 112) in [-1, 1], RGB, in the dtype of the weights.
            labels: (N,) int64 in [0, C), -1 for ignored; needed only where there is a margin.
        """
        embeddings = self.backbone(images)
        logits, targets = self.head(embeddings, labels)
        return ClassifierOutput(embeddings, logits, targets)


def build_classifier(config: Config, classes: int) -> PairClassifier:
    """A freshly initialised classifier of ``classes`` people, from torch's global generator.

    Raises:
        UserError: fewer than two classes, an unknown backbone, a margin on a linear head.
    """
    if classes < 2:
        raise UserError(
            f"{classes} identities: a classifier needs two", fix="add people to the pack"
        )
    model = config.model
    backbone = build_backbone(model.name, embedding_dim=model.embedding_dim, dropout=model.dropout)
    return PairClassifier(backbone, build_head(config.head, model.embedding_dim, classes))
