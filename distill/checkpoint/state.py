"""What a checkpoint holds, and what it needs of the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from distill.data.batch import OrderState
from distill.errors import UserError

if TYPE_CHECKING:
    import torch

    from distill.engine_parts.fragments import Fragment
    from distill.ranks import Ranks


class SaveFailed(UserError):
    """A checkpoint could not be written, on some rank; raised on all of them.

    What was there before is untouched, and training can go on.
    """


_BEGINNING = OrderState(epoch=0, consumed=0)


@dataclass(frozen=True)
class TrainState:
    """The place of a run, apart from weights and optimizer.

    Attributes:
        step: optimizer steps made (schedules are functions of it).
        order: place in the order of samples, counted over all ranks.
        metrics: evaluation scalars of this very step, if it was evaluated.
        skipped: steps left out so far because something was not finite.
        skipped_in_a_row: how many of them were the last ones.
    """

    step: int
    order: OrderState = _BEGINNING
    metrics: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    skipped_in_a_row: int = 0

    def as_json(self) -> dict[str, Any]:
        """As plain data; metrics that are not finite are left out, JSON has no word for them."""
        finite = {name: float(v) for name, v in self.metrics.items() if math.isfinite(v)}
        return {**vars(self), "order": list(self.order), "metrics": finite}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainState:
        """What `as_json` wrote, or an earlier program, which told the best metric as well."""
        told = {name: value for name, value in data.items() if name != "best"}
        return cls(**told | {"order": OrderState(*data["order"])})


@dataclass(frozen=True)
class RunFacts:
    """What a checkpoint must agree on with the run that loads it.

    Attributes:
        run_id: identity of the run; a resumed run goes on with the one it finds.
        config: the configuration as plain data (``Config.model_dump()``).
        identities: names of the C people, by label.
        data_digest: digest of the training pack.
    """

    run_id: str
    config: Mapping[str, Any]
    identities: Sequence[str]
    data_digest: str


class Trainable(Protocol):
    """The side of `distill.engine.Engine` that checkpoints see."""

    ranks: Ranks
    zero_stage: int
    moments: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""

    @property
    def class_bounds(self) -> dict[str, tuple[int, ...]]:
        """Parameters that stand by ranges of rows: the first row on each rank, and their number.

        Each rank has its rows whole, in one fragment, and nothing of the others.
        """

    @property
    def replicated(self) -> bool:
        """Whether every rank holds all weights and moments that do not stand by ranges."""

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Live buffers, equal on all ranks."""

    def fragments(self, kind: str) -> list[Fragment]:
        """This rank's pieces of the weights, or of one of the moments."""

    def counters(self) -> dict[str, float]:
        """Small numbers that belong to the optimizer."""

    def finish_load(self, counters: dict[str, float]) -> None:
        """Called after fragments and buffers were written to."""
