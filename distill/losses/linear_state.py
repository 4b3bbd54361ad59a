"""The steps in which a pair loss is streamed: classes arrive in chunks, all logits are never there.

    accumulate_      a chunk of scores into the state of each pair
    merge            states of other chunks or of other ranks into one, in the order given
    finish           state to values, by-products, and what the gradient needs to know
    mmd_accumulate_  the second sweep that the linear discrepancy needs, and
    mmd_finish_      its end
    gradient_        scores of a chunk replaced by the gradients with respect to them

`linear_native.py` calls the operators of `kernels/`, `linear_plain.py` has the same in plain torch;
the mathematics stands in `kernels/pair_loss.h`. Scores are logits, or cosines; logits are
``logit_scale`` times them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from distill.losses import fused, registration
from distill.losses.spec import PairLossSpec

STATE_COLUMNS = ("m", "s", "t", "a", "y", "sum", "h")
"""Of each pair, for the first side and then for the second, all but y without the target's class.

m: largest score; s, t: sums of exp(logit - largest) at temperatures 1 and T; a, h: sums of the
latter's terms times the similarity's factor and times their own exponent; y: the target's score;
sum: of the scores.
"""


class Choices(NamedTuple):
    """The constants of a call, in the order in which the native operators take them."""

    temperature: float
    kind: int
    forward: float
    reverse: float
    similarity_scale: float
    label_smoothing: float
    stop_gradient: int
    logit_scale: float
    margin_angle_rad: float
    margin_cosine: float

    @classmethod
    def of(cls, spec: PairLossSpec, temperature: float) -> Choices:
        """The constants of ``spec`` at temperature T."""
        return cls(*fused.choices(spec, temperature))


class State(NamedTuple):
    """What classes have been reduced to.

    Attributes:
        sums: (B, 14), columns as in `STATE_COLUMNS`, float32 (float64 for float64 scores).
        tops: (B, 2) int64, class of each side's largest score; `NO_CLASS` for none.
    """

    sums: torch.Tensor
    tops: torch.Tensor


def columns_of(state: State) -> dict[str, torch.Tensor]:
    """The columns of a state by name, (B, 2) each."""
    return dict(zip(STATE_COLUMNS, sides_of(state.sums), strict=True))


def sides_of(table: torch.Tensor) -> Sequence[torch.Tensor]:
    """The quantities of (B, 2 k) columns, k times (B, 2)."""
    return table.view(len(table), -1, 2).unbind(1)


class Finished(NamedTuple):
    """The outcome of all classes.

    Attributes:
        values: (B, 3): both cross-entropies and the similarity.
        extras: (B, 4): entropies of both softened answers, and their probability of the target.
        tops: (B, 2) int64: arg-max of each side, -1 in rows with NaN.
        stats: (B, 12): what the gradient needs.
    """

    values: torch.Tensor
    extras: torch.Tensor
    tops: torch.Tensor
    stats: torch.Tensor


def own_column(labels: torch.Tensor, start: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The label's column among ``columns`` from class ``start`` on, (B, 1), and if it is there."""
    own = labels[:, None] - start
    return own.clamp(0, columns - 1), (own >= 0) & (own < columns)


class Primitives(Protocol):
    """An implementation of the steps; B pairs, scores (B, n), labels (B,) among all classes.

    In `linear_single.Singles` each side has its own label, and labels are (B, 2).
    """

    def accumulate_(
        self,
        state: State,
        first: torch.Tensor,
        second: torch.Tensor,
        labels: torch.Tensor,
        class_start: int,
        choices: Choices,
    ) -> None:
        """Add the classes from ``class_start`` on to ``state``."""

    def merge(self, states: State, choices: Choices) -> State:
        """One state of W stacked ones."""

    def finish(
        self,
        state: State,
        labels: torch.Tensor,
        classes: int,
        choices: Choices,
        margins: torch.Tensor | None = None,
    ) -> Finished:
        """The outcome; for mmd its similarity still lacks. Margins are (B, 6), see `RowMargins`."""

    def gradient_(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        labels: torch.Tensor,
        class_start: int,
        grad_values: torch.Tensor,
        stats: torch.Tensor,
        classes: int,
        choices: Choices,
    ) -> None:
        """Replace scores by gradients with respect to them, for ``grad_values``, (B, 3)."""


class PairPrimitives(Primitives, Protocol):
    """The same with the second sweep of a similarity that needs one."""

    def mmd_accumulate_(
        self,
        sums: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        labels: torch.Tensor,
        class_start: int,
        stats: torch.Tensor,
        choices: Choices,
    ) -> None:
        """Add p (p - q) and q (q - p) of these classes to ``sums``, (B, 2)."""

    def mmd_finish_(
        self,
        stats: torch.Tensor,
        values: torch.Tensor,
        sums: torch.Tensor,
        labels: torch.Tensor,
        choices: Choices,
    ) -> None:
        """Put the similarity into ``values`` and what its gradient needs into ``stats``."""


def empty_state(pairs: int, like: torch.Tensor, dtype: torch.dtype) -> State:
    """The state of no class, on the device of ``like``."""
    return State(*registration.empty_state(pairs, dtype, like.device))
