"""The one network: a backbone, and a head on its embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from distill.config.tree import Config
from distill.errors import UserError
from distill.heads import (
    AdaFace,
    ClassRanges,
    CosineHead,
    LinearHead,
    ShardedHead,
    build_adaface,
    build_head,
    build_sharded_head,
    check_kind,
)
from distill.heads.answers import Answers, answers_to, blocks, joined, logits_of
from distill.heads.replicated import Use
from distill.models.compiled import compile_backbone
from distill.models.recompute import recompute_blocks
from distill.models.registry import build_backbone, check_backbone
from distill.ranks import Ranks


class ClassifierOutput(NamedTuple):
    """What the classifier says of N images.

    Attributes:
        embeddings: (N, D), as the backbone gives them (not of unit length).
        scores: (N, C), what the loss takes, float32 or wider: logits of a linear head, cosines of
            a cosine head; free of margins.
        scale: logits are the scores times it.
    """

    embeddings: torch.Tensor
    scores: torch.Tensor
    scale: float = 1.0

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

    def forward(self, images: torch.Tensor, use: Use | None = None) -> Any:
        """Classify images, (N, 3, 112, 112) in [-1, 1], RGB, in the dtype of the weights.

        Returns:
            `ClassifierOutput`; with ``use`` the embeddings and what it makes of them and the
            head's weight, and no scores.
        """
        embeddings = self.backbone(images)
        if use is not None:
            return embeddings, self.head(embeddings, use)
        return ClassifierOutput(embeddings, self.head(embeddings), self.head.scale)

    def answers(self, embeddings: torch.Tensor, classes: torch.Tensor) -> Answers:
        """Answers to N embeddings, as `ShardedClassifier.answers`, by this rank alone."""
        device = self.head.weight.device
        rows = embeddings.reshape(len(classes), self.head.weight.shape[-1])
        parts = blocks(rows, classes)
        return joined([self._answers(e.to(device), c.to(device)) for e, c in parts])

    def _answers(self, embeddings: torch.Tensor, classes: torch.Tensor) -> Answers:
        return answers_to(self.logits(embeddings), classes)

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (N, C) of embeddings (N, D), float32 or wider, free of margins, without gradients.

        As those of `forward`, but without a copy of the weight: of a head of millions of people a
        copy takes gigabytes, and to make it more time than the answers to a few photographs.
        """
        with torch.no_grad():
            found: torch.Tensor = self.head(embeddings, partial(logits_of, scale=self.head.scale))
        return found


class Embedder(nn.Module):
    """The network without its head, for heads that stand outside of it."""

    def __init__(self, backbone: nn.Module, adaface: AdaFace | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.adaface = adaface

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D), not of unit length, of images as `PairClassifier` takes them."""
        embeddings: torch.Tensor = self.backbone(images)
        return embeddings


class ShardedClassifier(nn.Module):
    """A backbone on every rank and a range of the head on each, for evaluation."""

    def __init__(self, embedder: Embedder, head: ShardedHead) -> None:
        super().__init__()
        self.backbone = embedder.backbone
        self.head = head

    def answers(self, embeddings: torch.Tensor, classes: torch.Tensor) -> Answers:
        """Answers to N embeddings (N, D) and their right classes, -1 for none; a collective."""
        return self.head.answers(embeddings, classes)


def check_people(classes: int) -> None:
    """Refuse so few people that there is nobody to tell one of them from.

    Raises:
        UserError: fewer than two.
    """
    if classes < 2:
        people = "1 person" if classes == 1 else f"{classes} people"
        raise UserError(
            f"data.train: {people} in all, and a classifier needs two",
            fix="pack the photographs of more people",
        )


def check_network(config: Config, classes: int) -> None:
    """Refuse what `build_for_training` would, by names alone where they tell: nothing is drawn.

    Raises:
        UserError: as there.
    """
    check_people(classes)
    check_backbone(config.model.name)
    check_kind(config.head)
    if config.model.recompute == "blocks":
        with torch.device("meta"):
            backbone = _build_backbone(config, classes)
        recompute_blocks(backbone, config.model.name)


def build_classifier(config: Config, classes: int) -> PairClassifier:
    """A freshly initialised classifier of ``classes`` people, from torch's global generator.

    Raises:
        UserError: fewer than two classes, an unknown backbone, a linear head with a margin or with
            sub-centres.
    """
    backbone = _build_backbone(config, classes)
    head = build_head(config.head, config.model.embedding_dim, classes)
    return PairClassifier(backbone, head, build_adaface(config.head))


def shapes_of(config: Config, classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters and buffers of `build_classifier`, by name; nothing is drawn.

    Wherever the head is to stand they have these names in an engine and in a checkpoint.

    Raises:
        UserError: as `build_classifier`.
    """
    with torch.device("meta"):
        model = build_classifier(config, classes)
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tuple(tensor.shape) for name, tensor in named}


def build_for_training(
    config: Config, classes: int, ranks: Ranks
) -> tuple[PairClassifier | Embedder, ShardedHead | None]:
    """What this rank trains: the network of the engine, and the head where it stands outside.

    The weights are those of `build_classifier` with the same generator, wherever they stand.

    Raises:
        UserError: as `build_classifier`.
    """
    network, head = _build_placed(config, classes, ranks)
    if config.model.recompute == "blocks":
        recompute_blocks(network.backbone, config.model.name)
    if config.model.compile:
        compile_backbone(network.backbone)
    return network, head


def _build_placed(
    config: Config, classes: int, ranks: Ranks
) -> tuple[PairClassifier | Embedder, ShardedHead | None]:
    if config.head.placement == "replicated":
        return build_classifier(config, classes), None
    backbone = _build_backbone(config, classes)
    ranges = ClassRanges.even(classes, ranks.rank, ranks.world_size)
    head = build_sharded_head(config.head, config.model.embedding_dim, ranges)
    return Embedder(backbone, build_adaface(config.head)), head


def _build_backbone(config: Config, classes: int) -> nn.Module:
    check_people(classes)
    model = config.model
    return build_backbone(model.name, embedding_dim=model.embedding_dim, dropout=model.dropout)
