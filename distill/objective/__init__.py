"""What a step minimises, wherever the head stands and whatever is stored of its scores.

    Stored    the engine's network gives scores for all classes, and the loss is made from them
    Fused     the engine's network gives the loss: its head lends the weight where that is whole
    Sharded   the engine's network gives embeddings, which the ranks share; each has some classes

All are the mean over the pairs of the global batch, and `distill.step` sees no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from distill.objective.fused import Fused
from distill.objective.sharded import Sharded
from distill.objective.stored import Stored
from distill.objective.terms import BatchLoss, PairAnswers

if TYPE_CHECKING:
    from distill.config.tree import Config
    from distill.data.batch import PairBatch
    from distill.engine import Engine

__all__ = ["BatchLoss", "Objective", "PairAnswers", "objective_of"]


class Objective(Protocol):
    """A way to compute the loss; one object for a run."""

    def begin(self, engine: Engine, batches: Sequence[PairBatch], step: int) -> None:
        """Called before the first micro-batch of a step, with all of them; a collective."""

    def loss(
        self, engine: Engine, batch: PairBatch, step: int, micro: int, answers_of: int
    ) -> BatchLoss:
        """The loss of the ``micro``-th micro-batch, of B pairs on the engine's device.

        T and weight are those of ``step``. Answers to the first ``answers_of`` pairs are made where
        that is not 0, on all ranks alike.
        """


def objective_of(config: Config) -> Objective:
    """The one that the settings ask for."""
    if config.head.placement == "sharded":
        return Sharded(config)
    return Fused(config) if config.loss.form == "fused" else Stored(config)
