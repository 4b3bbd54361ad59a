"""The sweeps of :func:`distill.losses.linear_pair_loss` over the classes, and their gradient.

    sweep 1   scores of each chunk into the state; some chunks are kept, as a budget allows
    sweep 2   (linear mmd alone) scores again, the means of its gradient
    backward  scores again, their gradient in place of them, and from it dX, dW and db

Every sweep takes the chunks in the same order and a score made again has the same bits, so that
the budget changes the time and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from distill.losses.linear_scores import ClassScores, Gradients
from distill.losses.linear_state import Choices, Finished, Primitives, State, empty_state
from distill.losses.sharded import ClassShards
from distill.losses.spec import RowTerms, accumulation_dtype

SECOND_DERIVATIVE = (
    "linear_pair_loss: a second derivative is not implemented; "
    "use pair_loss on whole logits with loss.implementation = 'reference'"
)


@dataclass(frozen=True)
class Plan:
    """How a call is computed; nothing in it changes with the values.

    Attributes:
        primitives: the implementation of the steps.
        choices: the constants of the loss.
        cosine: whether the scores are cosines.
        chunk_classes: classes in a chunk, the last one apart.
        budget_bytes: bytes of scores that may be kept from the first sweep for the last.
        all_or_none: keep none where not all scores fit into the budget.
        shards: where the classes are spread over ranks.
        keep: whether a gradient will be asked for.
    """

    primitives: Primitives
    choices: Choices
    cosine: bool
    chunk_classes: int
    budget_bytes: int
    all_or_none: bool
    shards: ClassShards | None
    keep: bool


@dataclass
class Stream:
    """One batch against the classes of this rank."""

    scores: ClassScores
    labels: torch.Tensor
    plan: Plan
    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    kept_bytes: int = 0

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Bounds of the chunks, in the order of the classes."""
        rows, step = self.scores.weight.shape[0], self.plan.chunk_classes
        for start in range(0, rows, step):
            yield start, min(start + step, rows)

    @property
    def classes(self) -> int:
        """All classes, those of other ranks included."""
        shards = self.plan.shards
        return self.scores.weight.shape[0] if shards is None else shards.classes

    @property
    def class_start(self) -> int:
        """Number of this rank's first class."""
        return 0 if self.plan.shards is None else self.plan.shards.class_start

    def finished(self) -> Finished:
        """The outcome over all classes."""
        plan = self.plan
        state = self._state()
        if plan.shards is not None:
            states = plan.shards.gather_states(state, self.labels, plan.choices)
            state = plan.primitives.merge(states, plan.choices)
        done = plan.primitives.finish(state, self.labels, self.classes, plan.choices)
        if plan.choices.is_mmd:
            sums = self._mmd_sums(done.stats)
            args = (done.stats, done.values, sums, self.labels)
            plan.primitives.mmd_finish_(*args, plan.choices)
        return done

    def _state(self) -> State:
        x = self.scores.features
        state = empty_state(x.shape[0] // 2, x, accumulation_dtype(x))
        for start, stop in self.chunks():
            self._accumulate(state, start, stop)
        return state

    def _accumulate(self, state: State, start: int, stop: int) -> None:
        scores = self.scores.of(start, stop)
        first, second = scores.chunk(2)
        at = self.class_start + start
        self.plan.primitives.accumulate_(state, first, second, self.labels, at, self.plan.choices)
        self._keep_if_room(start, scores)

    def _keep_if_room(self, start: int, scores: torch.Tensor) -> None:
        plan = self.plan
        wanted = plan.keep or plan.choices.is_mmd
        needed = self.scores.nbytes if plan.all_or_none else self.kept_bytes + scores.nbytes
        if wanted and needed <= plan.budget_bytes:
            self.kept[start] = scores
            self.kept_bytes += scores.nbytes

    def _mmd_sums(self, stats: torch.Tensor) -> torch.Tensor:
        sums = stats.new_zeros((stats.shape[0], 2))
        for start, stop in self.chunks():
            scores = self.kept[start] if start in self.kept else self.scores.of(start, stop)
            first, second = scores.chunk(2)
            at = self.class_start + start
            self.plan.primitives.mmd_accumulate_(
                sums, first, second, self.labels, at, stats, self.plan.choices
            )
            del scores, first, second
        shards = self.plan.shards
        return sums if shards is None else shards.sum_small(sums)

    def add_gradients(
        self, grad_values: torch.Tensor, stats: torch.Tensor, into: Gradients
    ) -> None:
        """Sweep for the gradient; kept scores are used up by it."""
        for start, stop in self.chunks():
            g = self.kept.pop(start, None)
            if g is None:
                g = self.scores.of(start, stop)
            first, second = g.chunk(2)
            at = self.class_start + start
            self.plan.primitives.gradient_(
                first, second, self.labels, at, grad_values, stats, self.classes, self.plan.choices
            )
            self.scores.add_gradients(start, stop, g, into)
            del g, first, second


def linear_values(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    plan: Plan,
) -> RowTerms:
    """The terms of each pair; ``features`` are the first images' rows, then the second's."""
    found = LinearValues.apply(features, weight, bias, labels.contiguous(), plan)  # type: ignore[no-untyped-call]
    return RowTerms(*found)


class LinearValues(torch.autograd.Function):
    """Values (B, 3), by-products (B, 4) and arg-max (B, 2) of features, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        plan: Plan,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sweeps forward; ``features`` are (2B, D)."""
        stream = Stream(ClassScores(features, weight, bias, plan.cosine), labels, plan)
        done = stream.finished()
        if plan.keep:
            ctx.save_for_backward(features, weight, bias, labels, done.stats)
            ctx.plan, ctx.kept = plan, stream.kept
        ctx.mark_non_differentiable(done.extras, done.tops)
        return done.values, done.extras, done.tops

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the inputs for any gradient of the values."""
        features, weight, bias, labels, stats = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            stream = Stream(ClassScores(features, weight, bias, ctx.plan.cosine), labels, ctx.plan)
            stream.kept = ctx.kept  # a second call finds them used up, and makes the scores again
            into = _empty_gradients(ctx.needs_input_grad, features, weight, bias)
            stream.add_gradients(grads[0].contiguous(), stats, into)
            if into.features is not None:
                into.features = _over_ranks(into.features, ctx.plan.shards).to(features.dtype)
        found = (into.features, into.weight, into.bias)
        if torch.is_grad_enabled():
            found = NoSecondDerivative.apply(grads[0], features, *found)  # type: ignore[no-untyped-call]
        return (*found, None, None)


class NoSecondDerivative(torch.autograd.Function):
    """Passes gradients through, and refuses to be differentiated."""

    @staticmethod
    def forward(
        ctx: Any, upstream: torch.Tensor, features: torch.Tensor, *found: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """``found`` as it is, bound to what it was computed from."""
        return tuple(None if one is None else one.view_as(one) for one in found)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Refused."""
        raise RuntimeError(SECOND_DERIVATIVE)


def _empty_gradients(
    needed: tuple[bool, ...],
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> Gradients:
    dtype = accumulation_dtype(features)
    return Gradients(
        torch.zeros_like(features, dtype=dtype) if needed[0] else None,
        weight.new_empty(weight.shape) if needed[1] else None,
        torch.empty_like(bias) if bias is not None and needed[2] else None,
    )


def _over_ranks(gradient: torch.Tensor, shards: ClassShards | None) -> torch.Tensor:
    if shards is None or not shards.sum_feature_gradients:
        return gradient
    return shards.sum_large(gradient)
