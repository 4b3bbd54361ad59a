"""The sweeps of :func:`distill.losses.linear_pair_loss` over the classes, and their gradient.

    sweep 1   scores of each chunk into the state; some chunks are kept, as a budget allows
    sweep 2   (linear mmd alone) scores again, the means of its gradient
    backward  scores again, their gradient in place of them, and from it dX, dW and db

Every sweep takes the chunks in the same order and a score made again has the same bits, so that
the budget changes the time and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from distill.losses.linear_plan import Plan
from distill.losses.linear_scores import Chunk, ClassScores, Gradients
from distill.losses.linear_state import Finished, State, empty_state
from distill.losses.linear_topk import (
    Grouped,
    TopClasses,
    numbers_of_candidates,
    similarity_gradient,
)
from distill.losses.sharded import ClassShards, columns_told
from distill.losses.spec import PairLossSpec, RowTerms, accumulation_dtype

SECOND_DERIVATIVE = (
    "linear_pair_loss: a second derivative is not implemented; "
    "use pair_loss on whole logits with loss.implementation = 'reference'"
)
MMD_SUMS = 2
"""Numbers of a pair that the second sweep adds up."""


@dataclass
class Stream:
    """One batch against the classes of this rank."""

    scores: ClassScores
    labels: torch.Tensor
    margins: torch.Tensor | None
    plan: Plan
    kept: dict[int, Chunk] = field(default_factory=dict)
    kept_bytes: int = 0
    grouped: Grouped | None = None

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
        top = self._top_classes() if plan.spec.grouped else None
        state = self._state() if top is None else top.whole()
        done = plan.steps.finish(state, self.labels, self.classes, plan.choices, self.margins)
        if plan.spec.two_sweeps:
            sums = self._mmd_sums(done.stats)
            args = (done.stats, done.values, sums, self.labels)
            plan.primitives.mmd_finish_(*args, plan.choices)
        if top is not None:
            self.grouped = top.grouped()
            done.values[:, 2] = self.grouped.similarity
        return done

    def _sweep(self, take: Callable[[torch.Tensor, int], None]) -> None:
        """Give ``take`` each chunk's scores and first class; keep them where there is room."""
        for start, stop in self.chunks():
            chunk = self.scores.of(start, stop)
            take(chunk.scores, self.class_start + start)
            self._keep_if_room(start, chunk)
            del chunk

    def _state(self) -> State:
        """The state of all classes, on all ranks."""
        plan, x = self.plan, self.scores.features
        state = empty_state(x.shape[0] // 2, x, accumulation_dtype(x))

        def take(scores: torch.Tensor, at: int) -> None:
            first, second = scores.chunk(2)
            plan.steps.accumulate_(state, first, second, self.labels, at, plan.choices)

        self._sweep(take)
        if plan.shards is None:
            return state
        states = plan.shards.gather_states(state, self.labels, plan.choices)
        return plan.steps.merge(states, plan.choices)

    def _top_classes(self) -> TopClasses:
        """The primary classes and the state of the rest, on all ranks."""
        plan, dtype = self.plan, accumulation_dtype(self.scores.features)
        top = TopClasses.empty(plan.spec, plan.choices, plan.primitives, self.labels, dtype)
        self._sweep(top.accumulate)
        if plan.shards is not None:
            top.over_ranks(plan.shards)
        return top

    def _keep_if_room(self, start: int, chunk: Chunk) -> None:
        plan = self.plan
        wanted = plan.keep or plan.spec.two_sweeps
        needed = self.scores.nbytes if plan.all_or_none else self.kept_bytes + chunk.nbytes
        if wanted and needed <= plan.budget_bytes:
            self.kept[start] = chunk
            self.kept_bytes += chunk.nbytes

    def _mmd_sums(self, stats: torch.Tensor) -> torch.Tensor:
        sums = stats.new_zeros((stats.shape[0], MMD_SUMS))
        for start, stop in self.chunks():
            chunk = self.kept[start] if start in self.kept else self.scores.of(start, stop)
            first, second = chunk.scores.chunk(2)
            at = self.class_start + start
            self.plan.primitives.mmd_accumulate_(
                sums, first, second, self.labels, at, stats, self.plan.choices
            )
            del chunk, first, second
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
            self._differentiate_(g.scores, self.class_start + start, grad_values, stats)
            self.scores.add_gradients(start, stop, g, into)
            del g

    def _differentiate_(
        self, g: torch.Tensor, at: int, grad_values: torch.Tensor, stats: torch.Tensor
    ) -> None:
        """Replace the scores ``g`` of the classes from ``at`` on by the gradients to them."""
        plan, more = self.plan, None
        if self.grouped is not None:
            more = similarity_gradient(self.grouped, g, at, grad_values[:, 2], plan.choices)
        first, second = g.chunk(2)
        plan.steps.gradient_(
            first, second, self.labels, at, grad_values, stats, self.classes, plan.choices
        )
        if more is not None:
            g.view(more.shape).add_(more)


def numbers_told(spec: PairLossSpec, *, single: bool = False) -> int:
    """Float32 numbers that each rank with a part of the classes tells of a pair in forward.

    Of an image, where it is ``single``.
    """
    state = len(columns_told(spec.label_smoothing, single=single))
    if single:
        return state // 2
    candidates = numbers_of_candidates(spec.topk_classes) if spec.grouped else 0
    return state + candidates + MMD_SUMS * spec.two_sweeps


def linear_values(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    margins: torch.Tensor | None,
    plan: Plan,
) -> RowTerms:
    """The terms of each pair; ``features`` are the first images' rows, then the second's.

    Labels are (B,), or (B, 2) where the plan's images are single.
    """
    labels = labels.contiguous()
    found = LinearValues.apply(features, weight, bias, labels, margins, plan)  # type: ignore[no-untyped-call]
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
        margins: torch.Tensor | None,
        plan: Plan,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sweeps forward; ``features`` are (2B, D)."""
        scores = ClassScores(features, weight, bias, plan.cosine)
        stream = Stream(scores, labels, margins, plan)
        done = stream.finished()
        if plan.keep:
            ctx.save_for_backward(features, weight, bias, labels, done.stats)
            ctx.plan, ctx.kept, ctx.grouped = plan, stream.kept, stream.grouped
        ctx.mark_non_differentiable(done.extras, done.tops)
        return done.values, done.extras, done.tops

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the inputs for any gradient of the values."""
        features, weight, bias, labels, stats = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            scores = ClassScores(features, weight, bias, ctx.plan.cosine)
            stream = Stream(scores, labels, None, ctx.plan)  # statistics know the margins
            stream.grouped = ctx.grouped
            stream.kept = ctx.kept  # a second call finds them used up, and makes the scores again
            into = _empty_gradients(ctx.needs_input_grad, features, weight, bias)
            stream.add_gradients(grads[0].contiguous(), stats, into)
            if into.features is not None:
                into.features = _over_ranks(into.features, ctx.plan.shards).to(features.dtype)
        found = (into.features, into.weight, into.bias)
        if torch.is_grad_enabled():
            found = NoSecondDerivative.apply(grads[0], features, *found)  # type: ignore[no-untyped-call]
        return (*found, None, None, None)


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
