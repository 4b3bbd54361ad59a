"""Single images in the streaming form: two of them stand where the images of a pair stand.

The steps of `linear_state.py` take both sides of a pair, of one label. Images without a partner go
two at a time, each with a label of its own: of a chunk, the labels' columns are taken out here, so
that the steps see sides that have no label among these classes. With a similarity of ``none`` the
sides know nothing of each other, so nothing is left out, and it runs wherever the steps do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distill.losses.linear_state import (
    STATE_COLUMNS,
    Choices,
    Finished,
    Primitives,
    State,
    columns_of,
    own_column,
)
from distill.losses.spec import IGNORED_LABEL

# ruff: noqa: D102 - each is described once, in `linear_state.Primitives`


@dataclass(frozen=True)
class Singles(Primitives):
    """The steps for labels (B, 2), one for each side, and a similarity of ``none``.

    Attributes:
        steps: those for pairs. They must find numbers alone in the rows of ignored images, whose
            gradient is a product with 0.
    """

    steps: Primitives

    def accumulate_(
        self,
        state: State,
        first: torch.Tensor,
        second: torch.Tensor,
        labels: torch.Tensor,
        class_start: int,
        choices: Choices,
    ) -> None:
        before = {name: _side_by_side(state, name).clone() for name in ("y", "sum")}
        own = [_Own.of(x, y, class_start) for x, y in zip((first, second), labels.T, strict=True)]
        if choices.label_smoothing > 0.0:
            before["sum"] += torch.cat([one.sum_of_others() for one in own], 1)
        for one in own:
            one.put(-torch.inf)
        nowhere = _one_label(labels, class_start + first.shape[1])
        self.steps.accumulate_(state, first, second, nowhere, class_start, choices)
        for one in own:
            one.put(one.scores)
        before["y"] += torch.cat([one.target() for one in own], 1)
        for name, sums in before.items():
            _side_by_side(state, name).copy_(sums)

    def merge(self, states: State, choices: Choices) -> State:
        return self.steps.merge(states, choices)

    def finish(
        self,
        state: State,
        labels: torch.Tensor,
        classes: int,
        choices: Choices,
        margins: torch.Tensor | None = None,
    ) -> Finished:
        # The label that pairs have here is for an arg-max that is not used.
        done = self.steps.finish(state, _one_label(labels, 0), classes, choices, margins)
        columns, valid = columns_of(state), labels != IGNORED_LABEL
        m, s, y = (columns[name] for name in ("m", "s", "y"))
        tops = torch.where(y == m, torch.minimum(labels, state.tops), state.tops)
        tops = torch.where(y > m, labels, tops)
        values = torch.where(valid, done.values[:, :2], 0.0)
        return done._replace(
            values=torch.cat([values, torch.zeros_like(values[:, :1])], 1),
            tops=torch.where(s.isnan() | y.isnan() | ~valid, -1, tops),
        )

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
        own = [_Own.of(x, y, class_start) for x, y in zip((first, second), labels.T, strict=True)]
        # A chunk of one class, which is the label's: what the gradient is there.
        there, rest = [one.scores for one in own], (grad_values, stats, classes, choices)
        self.steps.gradient_(there[0], there[1], _one_label(labels, 0), 0, *rest)
        nowhere = _one_label(labels, class_start + first.shape[1])
        self.steps.gradient_(first, second, nowhere, class_start, *rest)
        for one, gradient in zip(own, there, strict=True):
            one.put(gradient)


@dataclass(frozen=True)
class _Own:
    """The label's column of each row of a chunk of scores, where it is in there.

    Attributes:
        chunk: (B, n).
        place: of the column, (B, 1); any place where it is in another chunk.
        inside: whether it is in this one, (B, 1).
        scores: a copy of what stood at the place, (B, 1).
    """

    chunk: torch.Tensor
    place: torch.Tensor
    inside: torch.Tensor
    scores: torch.Tensor

    @classmethod
    def of(cls, chunk: torch.Tensor, labels: torch.Tensor, start: int) -> _Own:
        """Of the classes from ``start`` on, and labels (B,)."""
        place, inside = own_column(labels, start, chunk.shape[1])
        return cls(chunk, place, inside, chunk.gather(1, place))

    def put(self, values: torch.Tensor | float) -> None:
        """Write into the label's column; other columns keep what they have."""
        there = self.chunk.gather(1, self.place)
        self.chunk.scatter_(1, self.place, torch.where(self.inside, values, there))

    def target(self) -> torch.Tensor:
        """The label's scores, 0 where they are in another chunk."""
        return torch.where(self.inside, self.scores, 0.0)

    def sum_of_others(self) -> torch.Tensor:
        """Sums of the scores but the label's, (B, 1), as wide as a state; they go out for it."""
        self.put(0.0)
        wide = torch.promote_types(self.chunk.dtype, torch.float32)
        return self.chunk.sum(1, keepdim=True, dtype=wide)


def _side_by_side(state: State, name: str) -> torch.Tensor:
    """A quantity of both sides, (B, 2), as a view of the state."""
    at = 2 * STATE_COLUMNS.index(name)
    return state.sums[:, at : at + 2]


def _one_label(labels: torch.Tensor, value: int) -> torch.Tensor:
    """The same label for every pair, (B,)."""
    return labels.new_full((len(labels),), value)
