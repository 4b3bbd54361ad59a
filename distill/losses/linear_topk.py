"""Grouped classes (:mod:`distill.losses.topk`) in the streaming form, over chunks and over ranks.

The primary classes are known only after the first sweep, and the rest's sum must not be got by
taking theirs off the whole: it would cancel. So each chunk gives its largest columns apart, as
candidates, and the state takes in the others; candidates that are beaten later are added to the
state then. In the end there are the candidates, the state of the rest, and the label, which a state
never holds. All of it works with the primitives of `linear_state.py` and a similarity of ``none``.

The similarity itself is plain torch on (B, K + 1) grouped logits, and so is its gradient with
respect to them; of a class in the rest it is the rest's, times the class's share of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from distill.losses.linear_state import (
    STATE_COLUMNS,
    Choices,
    Primitives,
    State,
    columns_of,
    empty_state,
    own_column,
)
from distill.losses.reference import pair_similarity
from distill.losses.registration import NO_CLASS
from distill.losses.spec import IGNORED_LABEL, PairLossSpec

if TYPE_CHECKING:
    from distill.losses.sharded import ClassShards

SUM_COLUMNS = slice(2 * STATE_COLUMNS.index("sum"), 2 * STATE_COLUMNS.index("sum") + 2)
"""No list: as an index, that would be copied to the device, and the host would wait for it."""


class Candidates(NamedTuple):
    """Classes that may be primary, and the scores of both sides there.

    Attributes:
        classes: (B, k) int64 among all classes; `NO_CLASS` where there is none.
        scores: (2, B, k), -inf where there is none.
    """

    classes: torch.Tensor
    scores: torch.Tensor

    def joined(self, other: Candidates) -> Candidates:
        """Those of both."""
        pairs = zip(self, other, strict=True)
        return Candidates(*(torch.cat(pair, -1) for pair in pairs))

    def cut(self, count: int) -> tuple[Candidates, Candidates]:
        """The ``count`` with the largest scores of the first side, and the others."""
        lowest = torch.finfo(self.scores.dtype).min
        # an excluded class (-inf) still comes before none
        keys = self.scores[0].clamp(min=lowest).masked_fill(self.classes == NO_CLASS, -torch.inf)
        order = keys.argsort(stable=True, dim=1, descending=True)
        return self._of(order[:, :count]), self._of(order[:, count:])

    def _of(self, places: torch.Tensor) -> Candidates:
        scores = self.scores.gather(2, places.expand(2, -1, -1))
        return Candidates(self.classes.gather(1, places), scores)


class Grouped(NamedTuple):
    """The outcome of grouped classes, and what its gradient needs.

    Attributes:
        similarity: (B,), 0 in ignored pairs.
        primary: classes (B, K), the label first.
        m: largest score of the rest, (2, B); infinite where the rest has none.
        inv_t: 1 over the rest's sum of exp((z - z_max)/T), (2, B); 0 where it has none.
        gradient: of each pair's similarity with respect to the grouped scores, (2, B, K + 1).
    """

    similarity: torch.Tensor
    primary: torch.Tensor
    m: torch.Tensor
    inv_t: torch.Tensor
    gradient: torch.Tensor


@dataclass
class TopClasses:
    """The first sweep's finds about one batch.

    Attributes:
        spec: the static choices.
        choices: the constants of the call, without a similarity.
        primitives: the implementation of the steps.
        labels: (B,) int64.
        rest: the state of all columns seen that are neither the label's nor candidates'.
        best: K - 1 candidates.
    """

    spec: PairLossSpec
    choices: Choices
    primitives: Primitives
    labels: torch.Tensor
    rest: State
    best: Candidates

    @classmethod
    def empty(
        cls,
        spec: PairLossSpec,
        choices: Choices,
        primitives: Primitives,
        labels: torch.Tensor,
        dtype: torch.dtype,
    ) -> TopClasses:
        """Before the first chunk."""
        B, others = len(labels), spec.topk_classes - 1
        classes = labels.new_full((B, others), NO_CLASS)
        scores = torch.full((2, B, others), -torch.inf, dtype=dtype, device=labels.device)
        rest = empty_state(B, labels, dtype)
        return cls(spec, choices, primitives, labels, rest, Candidates(classes, scores))

    def accumulate(self, scores: torch.Tensor, start: int) -> None:
        """Take a chunk of scores in, (2B, n), of the classes from ``start`` on.

        Candidates' columns are taken out for the while, so it must not be shared with others.
        """
        sides = scores.view(2, len(self.labels), -1)
        own, inside = own_column(self.labels, start, sides.shape[2])
        places = self._largest_others(sides[0], own, inside)
        is_own = inside & (places == own)  # where there are not enough others
        columns = places.expand(2, -1, -1)
        taken = sides.gather(2, columns)
        sums = self._sums(sides, own, inside)
        sides.scatter_(2, columns, torch.where(is_own, taken, -torch.inf))
        first, second = sides
        self.primitives.accumulate_(self.rest, first, second, self.labels, start, self.choices)
        self.rest.sums[:, SUM_COLUMNS] = sums
        sides.scatter_(2, columns, taken)
        found = Candidates(
            torch.where(is_own, NO_CLASS, places + start),
            torch.where(is_own, -torch.inf, taken).to(self.rest.sums.dtype),
        )
        self._keep_best(self.best.joined(found))

    def _keep_best(self, candidates: Candidates) -> None:
        self.best, beaten = candidates.cut(self.spec.topk_classes - 1)
        self.rest = self._merged([self.rest, self._state_of(beaten)])

    def _largest_others(
        self, first: torch.Tensor, own: torch.Tensor, inside: torch.Tensor
    ) -> torch.Tensor:
        """Columns of the largest scores of the first side but the label's, (B, k)."""
        score = first.gather(1, own)
        first.scatter_(1, own, torch.where(inside, -torch.inf, score))
        places = first.topk(min(self.spec.topk_classes - 1, first.shape[1]), 1).indices
        first.scatter_(1, own, score)
        return places

    def _sums(self, sides: torch.Tensor, own: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Sums of the scores of all columns so far but the label's, candidates too, (B, 2)."""
        before = self.rest.sums[:, SUM_COLUMNS]
        if self.choices.label_smoothing == 0.0:
            return before
        of_label = sides.gather(2, own.expand(2, -1, -1))[..., 0] * inside[:, 0]
        return before + (sides.sum(2, dtype=before.dtype) - of_label).T

    def _state_of(self, candidates: Candidates) -> State:
        """Candidates' columns as a state; their scores are in the sums of the rest already."""
        order = candidates.classes.argsort(1)  # of equal scores the first class is the arg-max
        classes = candidates.classes.gather(1, order)
        scores = candidates.scores.gather(2, order.expand(2, -1, -1))
        state, count = empty_state(len(classes), scores, scores.dtype), classes.shape[1]
        if not count:
            return state
        nowhere = torch.where(self.labels == IGNORED_LABEL, IGNORED_LABEL, count)
        first, second = scores
        self.primitives.accumulate_(state, first, second, nowhere, 0, self.choices)
        state.sums[:, SUM_COLUMNS] = 0.0
        found = classes.gather(1, state.tops.clamp(max=count - 1))
        return State(state.sums, torch.where(state.tops == NO_CLASS, NO_CLASS, found))

    def _merged(self, states: list[State]) -> State:
        stacked = State(*(torch.stack(parts) for parts in zip(*states, strict=True)))
        return self.primitives.merge(stacked, self.choices)

    def over_ranks(self, shards: ClassShards) -> None:
        """Take in what the other ranks found; one all-gather of states, one of candidates."""
        states = shards.gather_states(self.rest, self.labels, self.choices)
        told = shards.gathered(packed(self.best, self.rest.tops))
        found, tops = unpacked(told, self.spec.topk_classes - 1)
        self.rest = self.primitives.merge(State(states.sums, tops), self.choices)
        self._keep_best(found)

    def whole(self) -> State:
        """The state of all columns but the label's."""
        return self._merged([self.rest, self._state_of(self.best)])

    def grouped(self) -> Grouped:
        """The similarity of each pair."""
        soft = self.choices.logit_scale / self.choices.temperature
        valid = self.labels != IGNORED_LABEL
        rest = columns_of(self.rest)
        primary = torch.cat([rest["y"].T[..., None], self.best.scores], 2)
        by = torch.maximum(primary.amax(2), rest["m"].T)
        of_rest = (rest["m"].T - by) * soft + rest["t"].T.log()
        logits = torch.cat([(primary - by[..., None]) * soft, of_rest[..., None]], 2)
        logits = torch.where(valid[:, None], logits, 0.0)
        with torch.enable_grad():
            leaf = logits.requires_grad_()
            first, second = leaf
            value = pair_similarity(first, second, self.choices.temperature, self.spec)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        some = valid & (rest["t"].T > 0.0)
        return Grouped(
            torch.where(valid, value.detach(), 0.0),
            torch.cat([self.labels[:, None], self.best.classes], 1),
            torch.where(some, rest["m"].T, torch.inf),
            torch.where(some, rest["t"].T.reciprocal(), 0.0),
            torch.where(valid[:, None], gradient * soft, 0.0),
        )


def similarity_gradient(
    grouped: Grouped,
    scores: torch.Tensor,
    start: int,
    upstream: torch.Tensor,
    choices: Choices,
) -> torch.Tensor:
    """Gradient of the similarities with respect to a chunk of scores, (2B, n), as (2, B, n).

    Args:
        grouped: the outcome of all classes.
        scores: of the classes from ``start`` on.
        start: class of column 0.
        upstream: gradients of the similarities, (B,).
        choices: the constants of the call.
    """
    sides = scores.view(2, len(upstream), -1)
    columns = sides.shape[2]
    # one column more, where the classes of other chunks go
    out = grouped.m.new_empty((*sides.shape[:2], columns + 1))
    found = out[..., :columns].copy_(sides)
    found.sub_(grouped.m[..., None]).mul_(choices.logit_scale / choices.temperature).exp_()
    found.mul_((grouped.inv_t * grouped.gradient[..., -1])[..., None])
    places = grouped.primary - start
    places = torch.where((places >= 0) & (places < columns), places, columns)
    out.scatter_(2, places.expand(2, -1, -1), grouped.gradient[..., :-1])
    return found.mul_(upstream[:, None])


def numbers_of_candidates(topk_classes: int) -> int:
    """Numbers that `packed` makes of a pair."""
    return 3 * (topk_classes - 1) + 2


def packed(candidates: Candidates, tops: torch.Tensor) -> torch.Tensor:
    """Candidates, and the arg-max (B, 2) of the rest, as one tensor (B, 3k + 2).

    Class numbers travel as the bits of whole numbers: 4 bytes for float32.
    """
    numbers = torch.cat([candidates.classes, tops], 1)
    whole = {4: torch.int32, 8: torch.int64}[candidates.scores.itemsize]
    bits = torch.where(numbers == NO_CLASS, -1, numbers).to(whole).view(candidates.scores.dtype)
    return torch.cat([*candidates.scores, bits], 1)


def unpacked(told: torch.Tensor, count: int) -> tuple[Candidates, torch.Tensor]:
    """Candidates of all ranks, (B, W k), and the ranks' arg-max, (W, B, 2), from (W, B, 3k + 2)."""
    world, B, _ = told.shape
    whole = {4: torch.int32, 8: torch.int64}[told.itemsize]
    numbers = told[..., 2 * count :].contiguous().view(whole).long()
    numbers = torch.where(numbers < 0, NO_CLASS, numbers)
    scores = told[..., : 2 * count].view(world, B, 2, count).permute(2, 1, 0, 3)
    classes = numbers[..., :count].transpose(0, 1).reshape(B, -1)
    found = Candidates(classes, scores.reshape(2, B, -1))
    return found, numbers[..., count:].contiguous()
