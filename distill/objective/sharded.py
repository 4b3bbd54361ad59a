"""The loss over ranks that each have some classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from distill.collectives import all_reduce_sum, gathered
from distill.data.batch import PairBatch
from distill.data.keyed import keyed_rng
from distill.heads.exchange import gathered_embeddings
from distill.heads.sampling import everything, sampled
from distill.losses import ClassShards, RowMargins
from distill.objective.fused import LinearLoss
from distill.objective.margins import (
    adaface_margins,
    constant_slope,
    cosines_with,
    margins_at,
)
from distill.objective.terms import (
    BatchLoss,
    best_of_pairs,
    images_of,
    measured,
    nobody,
    of_first_pairs,
)

if TYPE_CHECKING:
    from distill.config.tree import Config
    from distill.engine import Engine
    from distill.engine_parts.head import HeadTrainer
    from distill.heads.sampling import Selection


class Sharded:
    """A head outside of the network, of which each rank has some classes.

    Each rank's embeddings and labels go to all; then all have the loss of the whole batch.
    """

    def __init__(self, config: Config) -> None:
        self._linear = LinearLoss(config)
        self._head, self._images = config.head, config.train.images
        self._sides = config.train.images_per_pair
        self._rate, self._seed = config.head.sample_rate, config.run.seed
        self._shards = ClassShards(None, 0, (), sum_feature_gradients=False)
        self._selection: Selection | None = None

    def begin(self, engine: Engine, batches: Sequence[PairBatch], step: int) -> None:
        """Choose the classes of the step, one set for all its micro-batches."""
        head = _head_of(engine)
        mine = torch.stack([batch.labels for batch in batches]).to(engine.device)
        labels = gathered(mine).transpose(0, 1).flatten(1)
        if self._rate < 1.0:
            key = keyed_rng("classes of a step", self._seed, step, engine.ranks.rank)
            chosen = sampled(labels, head.ranges, self._rate, int(key.integers(2**63)))
        else:
            chosen = everything(labels, head.ranges)
        head.take(chosen.rows)
        self._selection = chosen
        # Not a new one: it remembers that the ranks have compared their arguments.
        self._shards = replace(self._shards, rank=engine.ranks.rank, bounds=chosen.bounds)

    def loss(
        self, engine: Engine, batch: PairBatch, step: int, micro: int, answers_of: int
    ) -> BatchLoss:
        """See `Objective`."""
        assert self._selection is not None, "begin comes first"
        head = _head_of(engine)
        embeddings = engine.forward(images_of(batch, self._images))
        everyone = self._of_all(embeddings)
        labels = self._selection.labels[micro]
        margins = self._margins_of_all(engine, embeddings, everyone, labels)
        loss = self._linear(everyone, head.weight, head.bias, labels, margins, step, self._shards)
        answers = None
        if answers_of:
            rows = of_first_pairs(embeddings, answers_of).float()
            answers = best_of_pairs(head.head.answers(rows, nobody(rows)))
        finite = torch.isfinite(embeddings.detach()).all()
        return measured(loss, embeddings, answers)._replace(finite=finite)

    def _margins_of_all(
        self, engine: Engine, embeddings: torch.Tensor, everyone: torch.Tensor, labels: torch.Tensor
    ) -> RowMargins | None:
        """Margins of the images of all ranks in the order of ``everyone``; a collective."""
        if constant_slope(self._head):
            of_images = labels.repeat(self._sides)
            return margins_at(self._head, self._cosines_with(engine, everyone, of_images))
        mine = adaface_margins(self._head, engine, embeddings)
        if mine is None:
            return None
        told = gathered(torch.stack(mine))
        told = told.view(*told.shape[:2], self._sides, -1)
        return RowMargins(*told.permute(1, 2, 0, 3).flatten(1))

    def _cosines_with(
        self, engine: Engine, everyone: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Cosines of all images with their own classes, of which each is some rank's; 0 of none."""
        assert self._selection is not None, "begin comes first"
        start, end = self._selection.bounds[engine.ranks.rank :][:2]
        mine = (labels >= start) & (labels < end)
        own = torch.where(mine, labels - start, 0)
        found = cosines_with(everyone, _head_of(engine).weight, own)
        return all_reduce_sum(torch.where(mine, found, 0.0))

    def _of_all(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings of all ranks from this rank's, all first images before all second ones."""
        everyone = gathered_embeddings(embeddings)
        sides = everyone.view(len(everyone), self._sides, -1, embeddings.shape[1])
        return sides.transpose(0, 1).flatten(0, 2)


def _head_of(engine: Engine) -> HeadTrainer:
    assert engine.head is not None, "the engine was made without a sharded head"
    return engine.head
