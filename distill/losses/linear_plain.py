"""The streaming steps of :mod:`distill.losses.linear_state` in plain torch.

Both sides of a pair are computed at once, as a dimension of size 2. Slow and clear; the names are
those of `kernels/pair_loss.h`, which explains what keeps the digits.
"""

from __future__ import annotations

import math

import torch

from distill.losses.fused import KINDS
from distill.losses.linear_state import (
    STATE_COLUMNS,
    Choices,
    Finished,
    State,
    columns_of,
    sides_of,
)
from distill.losses.registration import NO_CLASS
from distill.losses.spec import IGNORED_LABEL

# ruff: noqa: D103 - each is described once, in `linear_state.Primitives`

INFINITY = float("inf")
KL, CE, MMD = KINDS["kl"], KINDS["ce"], KINDS["mmd"]


def accumulate_(
    state: State,
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    class_start: int,
    choices: Choices,
) -> None:
    x, target = _scores(first, second, labels, class_start, state.sums.dtype)
    rest = x.masked_fill(target, -INFINITY)
    m, top = rest.max(2)
    # An empty row has no class: 0 stands in for its maximum, and every weight is 0.
    zero = torch.where(m == -INFINITY, 0.0, m)
    by = rest - zero[..., None]
    soft = by * (choices.logit_scale / choices.temperature)
    e = soft.exp()
    part = {
        "m": m,
        "s": (by * choices.logit_scale).exp().sum(2),
        "t": e.sum(2),
        "a": guarded(e, _factors(rest, zero, choices)).sum(2),
        "y": x.masked_fill(~target, 0.0).sum(2),
        "sum": x.masked_fill(target, 0.0).sum(2),
        "h": guarded(e, soft).sum(2),
    }
    tops = torch.where(m == -INFINITY, NO_CLASS, top + class_start)
    new = State(torch.stack([part[name] for name in STATE_COLUMNS], 1).flatten(1), tops)
    merged = _merge_two(state, new, choices)
    valid = (labels != IGNORED_LABEL)[:, None]
    state.sums.copy_(torch.where(valid, merged.sums, state.sums))
    state.tops.copy_(torch.where(valid, merged.tops, state.tops))


def merge(states: State, choices: Choices) -> State:
    merged = State(states.sums[0], states.tops[0])
    for sums, tops in zip(states.sums[1:], states.tops[1:], strict=True):
        merged = _merge_two(merged, State(sums, tops), choices)
    return merged


def finish(
    state: State,
    labels: torch.Tensor,
    classes: int,
    choices: Choices,
    margins: torch.Tensor | None = None,
) -> Finished:
    columns = columns_of(state)
    y = columns["y"]
    valid = (labels != IGNORED_LABEL)[:, None]
    ce, shift, inv_total, at_target = _cross_entropy(columns, classes, choices, margins)
    poisoned = columns["s"].isnan() | y.isnan()
    one = torch.where(y == -INFINITY, 0.0, y - y + 1.0)
    none = torch.zeros_like(y)
    own = torch.stack([y, none, one, none, none, none, none], 1).flatten(1)
    whole = _merge_two(state, State(own, labels[:, None].expand_as(y)), choices)
    m, t, a, h = (columns_of(whole)[name] for name in ("m", "t", "a", "h"))
    inv_t = torch.where(t == 0.0, 0.0, 1.0 / t)
    mean = a * inv_t
    soft_scale = choices.logit_scale / choices.temperature
    similarity = _similarity(mean, t, choices)
    entropy = (t.log() - h * inv_t).clamp(min=0.0)
    p_target = torch.where(y == -INFINITY, 0.0, ((y - m) * soft_scale).exp()) * inv_t
    return Finished(
        torch.where(valid, torch.cat([ce, similarity[:, None]], 1), 0.0),
        torch.where(valid, torch.cat([entropy, p_target], 1), 0.0),
        torch.where(poisoned | ~valid, -1, whole.tops),
        torch.stack([shift, inv_total, at_target, m, inv_t, mean], 1).flatten(1),
    )


def mmd_accumulate_(
    sums: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    class_start: int,
    stats: torch.Tensor,
    choices: Choices,
) -> None:
    x, _ = _scores(first, second, labels, class_start, sums.dtype)
    p = _probabilities(x, stats, choices)
    added = (p * (p - p.flip(1))).sum(2)
    sums.add_(torch.where((labels != IGNORED_LABEL)[:, None], added, 0.0))


def mmd_finish_(
    stats: torch.Tensor,
    values: torch.Tensor,
    sums: torch.Tensor,
    labels: torch.Tensor,
    choices: Choices,
) -> None:
    stats[:, 10:] = sums
    values[:, 2] = choices.similarity_scale * sums.sum(1) * (labels != IGNORED_LABEL)


def gradient_(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    class_start: int,
    grad_values: torch.Tensor,
    stats: torch.Tensor,
    classes: int,
    choices: Choices,
) -> None:
    x, target = _scores(first, second, labels, class_start, stats.dtype)
    ce_shift, inv_total, at_target = (part[..., None] for part in sides_of(stats)[:3])
    up = grad_values[:, :2, None] * choices.logit_scale
    share = (choices.logit_scale * (x - ce_shift)).exp() * inv_total
    gradient = up * torch.where(target, at_target, share - choices.label_smoothing / classes)
    if choices.kind != KINDS["none"]:
        gradient = gradient + _similarity_gradient(x, stats, grad_values[:, 2], choices)
    valid = (labels != IGNORED_LABEL)[:, None, None]
    gradient = torch.where(valid, gradient, 0.0)
    first.copy_(gradient[:, 0])
    second.copy_(gradient[:, 1])


def guarded(weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Product that is 0 where the weight is 0, whatever the factor is."""
    return torch.where(weight == 0.0, 0.0, weight * factor)


def margined(
    x: torch.Tensor, choices: Choices, margins: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The margin's psi of target scores (B, 2), and its slope; see `kernels/pair_loss.h`."""
    if margins is None:
        angle, of_call = choices.margin_angle_rad, choices.margin_cosine
        parts = (math.cos(angle), math.sin(angle), of_call)
        margins = torch.cat([x.new_full((len(x), 2), part) for part in parts], 1)
    cos, sin, cosine = sides_of(margins)
    square, floor = (1.0 - x) * (1.0 + x), 8.0 * torch.finfo(x.dtype).eps
    sine = square.clamp(min=floor).sqrt()
    slope = torch.where(square >= floor, cos + sin * x / sine, cos)
    beyond, held = (sin > 0.0) & ~(x >= -cos), (sin < 0.0) & (x >= cos)
    moved = torch.where(beyond, x - (1.0 - cos), x * cos - sine * sin)
    slope = torch.where(held, 0.0, torch.where(beyond, 1.0, slope))
    return torch.where(held, 1.0, moved) - cosine, slope


def _scores(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    class_start: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of both sides, (B, 2, n), and which of them are the target's, (B, 1, n)."""
    columns = torch.arange(first.shape[1], device=first.device)
    target = columns == (labels - class_start)[:, None]
    return torch.stack([first.to(dtype), second.to(dtype)], 1), target[:, None]


def _factors(x: torch.Tensor, m: torch.Tensor, choices: Choices) -> torch.Tensor:
    """What each side's similarity averages, (B, 2, n); 0 for other similarities."""
    by_maximum = m[..., None]
    if choices.kind == KL:
        f = (x - x.flip(1)) - (by_maximum - by_maximum.flip(1))
    elif choices.kind == CE:
        f = (by_maximum - x).flip(1)
    else:
        return torch.zeros_like(x)
    return f * (choices.logit_scale / choices.temperature)


def _rebased(state: State, m: torch.Tensor, choices: Choices) -> dict[str, torch.Tensor]:
    """The columns of a state relative to new maxima, (B, 2)."""
    old = columns_of(state)
    by = _shift(old["m"], m)
    soft = by * (choices.logit_scale / choices.temperature)
    factor = soft.exp()
    moved = soft - soft.flip(1) if choices.kind == KL else -soft.flip(1)
    a = guarded(factor, old["a"] + guarded(old["t"], moved)) if choices.kind in (KL, CE) else 0.0
    return old | {
        "m": m,
        "s": old["s"] * (by * choices.logit_scale).exp(),
        "t": old["t"] * factor,
        "a": a + torch.zeros_like(m),
        "h": guarded(factor, old["h"] + guarded(old["t"], soft)),
    }


def _merge_two(one: State, other: State, choices: Choices) -> State:
    m1, m2 = one.sums[:, :2], other.sums[:, :2]
    m = torch.maximum(m1, m2)
    parts = _rebased(one, m, choices), _rebased(other, m, choices)
    sums = [m if name == "m" else parts[0][name] + parts[1][name] for name in STATE_COLUMNS]
    larger = torch.where(m2 > m1, other.tops, one.tops)
    tops = torch.where(m1 == m2, torch.minimum(one.tops, other.tops), larger)
    return State(torch.stack(sums, 1).flatten(1), tops)


def _shift(start: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Difference start - to; 0 where both are -inf."""
    return torch.where((start == -INFINITY) & (to == start), 0.0, start - to)


def _cross_entropy(
    rest: dict[str, torch.Tensor], classes: int, choices: Choices, margins: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """Value, shift, 1 / total and the gradient at the target, (B, 2) each."""
    scale, smoothing = choices.logit_scale, choices.label_smoothing
    target, slope = margined(rest["y"], choices, margins)
    top = torch.maximum(rest["m"], target)
    at_rest = rest["s"] * (scale * _shift(rest["m"], top)).exp()
    at_target = torch.where(target == -INFINITY, 0.0, (scale * (target - top)).exp())
    total = at_rest + at_target
    far = at_rest.log1p() + (target - target)
    loss = torch.where(target > rest["m"], far, scale * (top - target) + total.log())
    if smoothing > 0.0:
        loss = loss + smoothing * scale * (target - (rest["sum"] + target) / classes)
    at_target = slope * (smoothing - smoothing / classes - at_rest / total)
    return loss, top, 1.0 / total, at_target


def _similarity(mean: torch.Tensor, t: torch.Tensor, choices: Choices) -> torch.Tensor:
    """KL divergence or cross-entropy of each pair, (B,); 0 for others."""
    if choices.kind not in (KL, CE):
        return torch.zeros_like(mean[:, 0])
    total = torch.zeros_like(mean[:, 0])
    for side, weight in enumerate((choices.forward, choices.reverse)):
        if weight:
            value = mean[:, side] + t[:, 1 - side].log()
            if choices.kind == KL:
                value = (mean[:, side] + (t[:, 1 - side].log() - t[:, side].log())).clamp(min=0.0)
            total = total + weight * value
    return choices.similarity_scale * total


def _probabilities(x: torch.Tensor, stats: torch.Tensor, choices: Choices) -> torch.Tensor:
    """Softened answers, (B, 2, n)."""
    m, inv_t = (part[..., None] for part in sides_of(stats)[3:5])
    return ((x - m) * (choices.logit_scale / choices.temperature)).exp() * inv_t


def _similarity_gradient(
    x: torch.Tensor, stats: torch.Tensor, upstream: torch.Tensor, choices: Choices
) -> torch.Tensor:
    p = _probabilities(x, stats, choices)
    mean = sides_of(stats)[5][..., None]
    own, cross = _of_sides(x, choices.forward, choices.reverse), None
    if choices.kind == MMD:
        own, f = torch.full_like(own, 2.0), p - p.flip(1)
    else:
        cross, f = own.flip(0), _factors(x, sides_of(stats)[3], choices)
    kept = _of_sides(x, choices.stop_gradient != 1, choices.stop_gradient != 2)
    scale = choices.similarity_scale * choices.logit_scale / choices.temperature
    soft = (upstream[:, None] * (kept * scale))[..., None]
    gradient = guarded(soft * own[:, None] * p, f - mean)
    return gradient if cross is None else gradient + soft * cross[:, None] * (p - p.flip(1))


def _of_sides(like: torch.Tensor, first: float, second: float) -> torch.Tensor:
    """A number for each side, (2,); not copied from the host, which would wait for a GPU."""
    return torch.cat([like.new_full((1,), number) for number in (first, second)])
