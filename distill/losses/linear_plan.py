"""How a call of a streamed loss is computed."""

from __future__ import annotations

from dataclasses import dataclass

from distill.losses.linear_single import Singles
from distill.losses.linear_state import Choices, PairPrimitives, Primitives
from distill.losses.sharded import ClassShards
from distill.losses.spec import PairLossSpec


@dataclass(frozen=True)
class Plan:
    """How a call is computed; nothing in it changes with the values.

    Attributes:
        primitives: the implementation of the steps.
        spec: the static choices.
        choices: the constants of the loss.
        cosine: whether the scores are cosines.
        chunk_classes: classes in a chunk, the last one apart.
        budget_bytes: bytes of scores that may be kept from the first sweep for the last.
        all_or_none: keep none where not all scores fit into the budget.
        shards: where the classes are spread over ranks.
        keep: whether a gradient will be asked for.
        single: whether each side of a pair is an image by itself, with its own label.
    """

    primitives: PairPrimitives
    spec: PairLossSpec
    choices: Choices
    cosine: bool
    chunk_classes: int
    budget_bytes: int
    all_or_none: bool
    shards: ClassShards | None
    keep: bool
    single: bool

    @property
    def steps(self) -> Primitives:
        """The steps for the labels at hand."""
        return Singles(self.primitives) if self.single else self.primitives
