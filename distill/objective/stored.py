"""The loss from the scores of a batch for all classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from distill.data.batch import PairBatch
from distill.heads.answers import answers_to
from distill.losses import IGNORED_LABEL, RowLoss, RowMargins, margined_logits, pair_loss
from distill.objective.margins import own_margins, own_scores, spec_of
from distill.objective.terms import (
    BatchLoss,
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
    from distill.models.classifier import ClassifierOutput


class Stored:
    """A head in the network, and the scores of the batch for all classes."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._spec = spec_of(config)

    def begin(self, engine: Engine, batches: Sequence[PairBatch], step: int) -> None:
        """Nothing is to be done."""

    def loss(
        self, engine: Engine, batch: PairBatch, step: int, micro: int, answers_of: int
    ) -> BatchLoss:
        """See `Objective`."""
        if self._config.train.images == "first":
            return self._first_alone(engine, batch)
        settings = self._config.loss
        output = engine.forward(images_of(batch, "pair"))
        first, second = output.scores.chunk(2)
        loss = pair_loss(
            first,
            second,
            batch.labels,
            temperature=temperature_at(settings, step),
            weight=weight_at(settings, step),
            spec=self._spec,
            margins=self._margins(engine, output, batch.labels.repeat(2)),
            implementation=settings.implementation,
        )
        answers = None
        if answers_of:
            logits = output.scale * of_first_pairs(output.scores, answers_of).float()
            answers = best_of_pairs(answers_to(logits, nobody(logits)))
        return measured(loss, output.embeddings, answers)

    def _first_alone(self, engine: Engine, batch: PairBatch) -> BatchLoss:
        """The baseline: cross-entropy of the sample images, no second image."""
        output = engine.forward(images_of(batch, "first"))
        margins = self._margins(engine, output, batch.labels)
        loss = F.cross_entropy(
            margined_logits(output.scores.float(), batch.labels, self._spec, margins),
            batch.labels,
            ignore_index=IGNORED_LABEL,
            label_smoothing=self._spec.label_smoothing,
            reduction="sum",
        )
        counted = _counted(batch.labels)
        loss = loss / counted
        correct = (output.scores.argmax(1) == batch.labels).sum() / counted
        return measured(RowLoss(loss, loss.detach(), correct), output.embeddings)

    def _margins(
        self, engine: Engine, output: ClassifierOutput, labels: torch.Tensor
    ) -> RowMargins | None:
        own = partial(own_scores, output.scores, labels)
        return own_margins(self._config.head, engine, output.embeddings, own)


def _counted(labels: torch.Tensor) -> torch.Tensor:
    """Images that are not ignored, at least 1: the mean of none is 0, as in a streamed loss."""
    return (labels != IGNORED_LABEL).sum().clamp(min=1)
