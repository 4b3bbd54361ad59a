"""The loss of a batch of pairs: for autograd, and with its gradient in one go."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from distill.losses import fused, reference
from distill.losses.checks import check_arguments
from distill.losses.choice import implementation_name
from distill.losses.margin import RowMargins
from distill.losses.spec import (
    IGNORED_LABEL,
    Implementation,
    PairLoss,
    PairLossAndGrad,
    PairLossSpec,
    Reduction,
    RowTerms,
    accumulation_dtype,
)


def pair_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    weight: float,
    spec: PairLossSpec,
    sample_weights: torch.Tensor | None = None,
    margins: RowMargins | None = None,
    reduction: Reduction = "mean",
    implementation: Implementation = "auto",
) -> PairLoss:
    """``w_ce * (CE(first) + CE(second)) + weight * S(p, q)``, reduced over the valid pairs.

    Each pair's terms are added first, then the pairs are reduced whose label is not -1; with none,
    the loss and its gradient are 0.

    Args:
        first: scores of the first images, (B, C); float64/32/16 or bfloat16. Logits are
            ``spec.logit_scale`` times the scores.
        second: scores of the second images, same shape, type and device.
        labels: identities, (B,) int64 in [0, C), or -1 for a pair to ignore.
        temperature: softening temperature T > 0 of the similarity, a Python number.
        weight: weight of the similarity, >= 0; at 0 it is measured and not added.
        spec: the static choices.
        sample_weights: weight of each pair, (B,) floating point >= 0; None for 1. The mean is over
            their sum.
        margins: of each image, (2B,), for cosines; None for those of ``spec``, which must be 0
            otherwise. Constants: the gradient is that for these margins.
        reduction: ``mean``, ``sum``, or ``none`` for one value a pair.
        implementation: ``auto``, ``native`` or ``reference``.

    Returns:
        The total with its gradient, and detached by-products; float32 (float64 for float64).

    Raises:
        UserError: an argument is out of its bounds, or the chosen implementation is not built
            for the device of the scores.
    """
    check_arguments(
        first, second, labels, temperature, weight, spec, sample_weights, margins, reduction
    )
    name = implementation_name(implementation, first.device.type)
    compute = fused.row_terms if name == "native" else reference.row_terms
    with torch.autocast(first.device.type, enabled=False):
        terms = compute(first, second, labels, temperature, spec, margins)
        return reduce_terms(terms, labels, weight, spec, sample_weights, reduction)


def pair_loss_and_grad(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    weight: float,
    spec: PairLossSpec,
    sample_weights: torch.Tensor | None = None,
    margins: RowMargins | None = None,
    reduction: Reduction = "mean",
    inplace: bool = False,
    implementation: Implementation = "auto",
) -> PairLossAndGrad:
    """The loss and the gradients of its total in one go: natively, one read and one write.

    Arguments as in :func:`pair_loss`. Autograd is not involved: the loss is detached, and what
    the scores came from gets its gradient by ``torch.autograd.backward((x1, x2), (g1, g2))``.

    Args:
        inplace: the gradients replace the scores, whose memory is returned.

    Raises:
        UserError: as `pair_loss`.
    """
    check_arguments(
        first, second, labels, temperature, weight, spec, sample_weights, margins, reduction
    )
    call = _Call(
        first.detach(), second.detach(), labels, temperature, weight, spec, sample_weights,
        margins, reduction, inplace,
    )  # fmt: skip
    name = implementation_name(implementation, first.device.type)
    with torch.autocast(first.device.type, enabled=False):
        if name == "native" and spec.whole_in_kernels:
            return _native(call)
        return _through_autograd(name, call)


class _Call(NamedTuple):
    """What `pair_loss_and_grad` was called with; its scores detached."""

    first: torch.Tensor
    second: torch.Tensor
    labels: torch.Tensor
    temperature: float
    weight: float
    spec: PairLossSpec
    sample_weights: torch.Tensor | None
    margins: RowMargins | None
    reduction: Reduction
    inplace: bool


def _through_autograd(name: Literal["native", "reference"], call: _Call) -> PairLossAndGrad:
    """For what has no operator: the reference, similarities of the batch, grouped classes."""
    compute = fused.row_terms if name == "native" else reference.row_terms
    with torch.enable_grad():
        first, second = (x.clone().requires_grad_() for x in (call.first, call.second))
        terms = compute(first, second, call.labels, call.temperature, call.spec, call.margins)
        loss = _reduced(terms, call, call.sample_weights)
    gradients = torch.autograd.grad(loss.total.sum(), (first, second))
    if call.inplace:
        gradients = call.first.copy_(gradients[0]), call.second.copy_(gradients[1])
    return PairLossAndGrad(loss._replace(total=loss.total.detach()), *gradients)


def _native(call: _Call) -> PairLossAndGrad:
    """In one read of the scores and one write of the gradients."""
    ops = torch.ops.pairdistill
    op = ops.pair_loss_and_grad_ if call.inplace else ops.pair_loss_and_grad
    weights = _weights_like(call.sample_weights, call.first)
    total, values, extras, tops, *gradients = op(
        call.first,
        call.second,
        call.labels.contiguous(),
        weights,
        call.spec.ce_weight,
        call.weight,
        fused.REDUCTIONS[call.reduction],
        *fused.choices(call.spec, call.temperature),
        margins=fused.margin_table(call.margins, call.first),
    )
    loss = _reduced(RowTerms(values, extras, tops), call, weights)
    if call.reduction != "none":
        loss = loss._replace(total=total)
    return PairLossAndGrad(loss, *((call.first, call.second) if call.inplace else gradients))


def _reduced(terms: RowTerms, call: _Call, weights: torch.Tensor | None) -> PairLoss:
    return reduce_terms(terms, call.labels, call.weight, call.spec, weights, call.reduction)


def _weights_like(weights: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor | None:
    """Sample weights as the operators take them."""
    if weights is None:
        return None
    return weights.detach().to(accumulation_dtype(scores)).contiguous()


def reduce_terms(
    terms: RowTerms,
    labels: torch.Tensor,
    weight: float,
    spec: PairLossSpec,
    sample_weights: torch.Tensor | None = None,
    reduction: Reduction = "mean",
) -> PairLoss:
    """Sum of each pair's terms, then the reduction over the pairs that are not ignored.

    Args:
        terms: what an implementation computed, with by-products.
        labels: (B,) int64.
        weight: weight of the similarity.
        spec: the static choices.
        sample_weights: (B,), or None.
        reduction: as in `pair_loss`.
    """
    values = terms.values
    of_row, share = weights_of(labels, sample_weights, values.dtype)
    table = _table(terms, labels)
    row_total = spec.ce_weight * (values[:, 0] + values[:, 1])
    if weight > 0.0 and terms.batch_similarity is None:
        row_total = row_total + weight * values[:, 2]
    if reduction == "none":
        return PairLoss(of_row * row_total, *table.unbind(1))
    total = (share if reduction == "mean" else of_row) @ row_total
    means = list((share @ table).unbind())
    if terms.batch_similarity is not None:
        means[2] = terms.batch_similarity.detach()
        if weight > 0.0:
            times = 1.0 if reduction == "mean" else of_row.sum()
            total = total + times * weight * terms.batch_similarity
    return PairLoss(total, *means)


def weights_of(
    labels: torch.Tensor, sample_weights: torch.Tensor | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight of each row, (B,), 0 where it is ignored, and its share of their sum."""
    of_row = (labels != IGNORED_LABEL).to(dtype)
    if sample_weights is not None:
        of_row = of_row * sample_weights.detach().to(dtype)
    total = of_row.sum()
    return of_row, of_row / torch.where(total > 0, total, 1.0)


def _table(terms: RowTerms, labels: torch.Tensor) -> torch.Tensor:
    """(B, 10) detached: values, by-products, and whether answers agree and are right."""
    assert terms.extras is not None, "this implementation computes no by-products"
    first, second = terms.tops.unbind(1)
    known = labels != IGNORED_LABEL
    flags = torch.stack(
        [(first == second) & (first >= 0), (first == labels) & known, (second == labels) & known], 1
    )
    return torch.cat([terms.values.detach(), terms.extras, flags.to(terms.values.dtype)], 1)
