"""The one network: a backbone, and a head on its embeddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from distill.config.tree import Config
from distill.errors import UserError
from distill.heads import (
    AdaFace,
    CosineHead,
    LinearHead,
    NormMargins,
    build_adaface,
    build_head,
)
from distill.models.registry import build_backbone


class ClassifierOutput(NamedTuple):
    """What the classifier says of N images.

    Attributes:
        embeddings: (N, D), as the backbone gives them (not of unit length).
        scores: (N, C), what the loss takes, float32 or wider: logits of a linear head, cosines of
            a cosine head; free of margins.
        scale: logits are the scores times it.
        margins: of each image, in training with AdaFace; else None.
    """

    embeddings: torch.Tensor
    scores: torch.Tensor
    scale: float = 1.0
    margins: NormMargins | None = None

    @property
    def logits(self) -> torch.Tensor:
        """(N, C), scaled and free of margins."""
        return self.scores if self.scale == 1.0 else self.scale * self.scores


class PairClassifier(nn.Module):
    """Images to identities. Both images of a pair go through it as one concatenated batch."""

    def __init__(
        self,
        backbone: nn.Module,
        head: LinearHead | CosineHead,
        adaface: AdaFace | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.adaface = adaface

    def forward(self, images: torch.Tensor) -> ClassifierOutput:
        """Classify images, (N, 3, 112, 112) in [-1, 1], RGB, in the dtype of the weights."""
        embeddings = self.backbone(images)
        margins = self.adaface(embeddings) if self.adaface and self.training else None
        return ClassifierOutput(embeddings, self.head(embeddings), self.head.scale, margins)


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
    head = build_head(config.head, model.embedding_dim, classes)
    return PairClassifier(backbone, head, build_adaface(config.head))
