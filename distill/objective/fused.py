"""The loss from embeddings and the head's weight, without scores for all classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from distill.data.batch import PairBatch
from distill.heads.answers import answers_to, logits_of
from distill.losses import (
    ClassShards,
    PairLoss,
    RowLoss,
    RowMargins,
    linear_cross_entropy,
    linear_pair_loss,
)
from distill.objective.margins import cosines_with, own_margins, spec_of
from distill.objective.terms import (
    BatchLoss,
    PairAnswers,
    best_of_pairs,
    images_of,
    measured,
    nobody,
    of_first_pairs,
)
from distill.schedules import temperature_at, weight_at

if TYPE_CHECKING:
    from distill.config.tree import Config
    from distill.engine import Engine

_EVERYTHING = 2**62  # bytes; no scores are more


class LinearLoss:
    """The loss from embeddings and weight, as the settings have it."""

    def __init__(self, config: Config) -> None:
        self._settings = config.loss
        self._of_pairs = config.train.images == "pair"
        self._kind = config.head.kind
        self._spec = spec_of(config)
        fused = config.loss.form == "fused"
        self._budget = int(config.loss.kept_scores_mb * 2**20) if fused else _EVERYTHING

    def __call__(
        self,
        embeddings: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        margins: RowMargins | None,
        step: int,
        shards: ClassShards | None = None,
    ) -> PairLoss | RowLoss:
        """The loss of B labels in ``step``, from all embeddings of one side after another."""
        common: dict[str, Any] = {
            "bias": bias,
            "spec": self._spec,
            "margins": margins,
            "head": self._kind,
            "memory_budget_bytes": self._budget,
            "implementation": self._settings.implementation,
            "shards": shards,
        }
        if not self._of_pairs:
            return linear_cross_entropy(embeddings, weight, labels, **common)
        first, second = embeddings.chunk(2)
        return linear_pair_loss(
            first,
            second,
            weight,
            labels,
            temperature=temperature_at(self._settings, step),
            similarity_weight=weight_at(self._settings, step),
            **common,
        )


class Fused:
    """A head in the network, whose scores for all classes are never there at once."""

    def __init__(self, config: Config) -> None:
        self._linear = LinearLoss(config)
        self._head, self._images = config.head, config.train.images

    def begin(self, engine: Engine, batches: Sequence[PairBatch], step: int) -> None:
        """Nothing is to be done."""

    def loss(
        self, engine: Engine, batch: PairBatch, step: int, micro: int, answers_of: int
    ) -> BatchLoss:
        """See `Objective`."""
        use = partial(self._with_weight, engine, batch.labels, step, answers_of)
        embeddings, (loss, answers) = engine.forward(images_of(batch, self._images), use)
        return measured(loss, embeddings, answers)

    def _with_weight(
        self,
        engine: Engine,
        labels: torch.Tensor,
        step: int,
        answers_of: int,
        embeddings: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> tuple[PairLoss | RowLoss, PairAnswers | None]:
        """What is asked of the head, in its forward pass."""
        of_images = labels.repeat(len(embeddings) // len(labels))
        own = partial(cosines_with, embeddings, weight, of_images)
        margins = own_margins(self._head, engine, embeddings, own)
        loss = self._linear(embeddings, weight, bias, labels, margins, step)
        if not answers_of:
            return loss, None
        rows = of_first_pairs(embeddings, answers_of)
        logits = logits_of(rows, weight.detach(), _detached(bias), self._head.scale)
        return loss, best_of_pairs(answers_to(logits, nobody(logits)))


def _detached(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.detach()
