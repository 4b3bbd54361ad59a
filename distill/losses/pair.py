"""The loss of a batch of pairs: one call for the training step."""

from __future__ import annotations

import torch

from distill.losses import fused, reference
from distill.losses.checks import check_arguments
from distill.losses.choice import implementation_name
from distill.losses.spec import (
    IGNORED_LABEL,
    Implementation,
    PairLoss,
    PairLossSpec,
    RowTerms,
    Targets,
)


def pair_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    weight: float,
    spec: PairLossSpec,
    targets: Targets | None = None,
    implementation: Implementation = "auto",
) -> PairLoss:
    """``w_ce * (CE(first) + CE(second)) + weight * S(p, q)``, mean over the valid pairs.

    Each pair's terms are added first, then the mean is taken over the pairs whose label is
    not -1; with none, the loss and its gradient are 0.

    Args:
        first: margin-free logits of the first images, (B, C); float64/32/16 or bfloat16.
        second: margin-free logits of the second images, same shape, type and device.
        labels: identities, (B,) int64 in [0, C), or -1 for a pair to ignore.
        temperature: softening temperature T > 0 of the similarity, a Python number.
        weight: weight of the similarity, >= 0; at 0 it is measured and not added.
        spec: the static choices.
        targets: margined target logits, two (B,) tensors; they replace z_y in the
            cross-entropies alone and receive their gradient.
        implementation: ``auto``, ``native`` or ``reference``.

    Returns:
        The total with its gradient, and detached by-products; float32 (float64 for float64).

    Raises:
        UserError: an argument is out of its bounds, or the chosen implementation is not built
            for the device of the logits.
    """
    check_arguments(first, second, labels, temperature, weight, targets)
    name = implementation_name(implementation, first.device.type)
    compute = fused.row_terms if name == "native" else reference.row_terms
    with torch.autocast(first.device.type, enabled=False):
        terms = compute(first, second, labels, temperature, spec, targets)
        return reduce_terms(terms, labels, weight, spec)


def reduce_terms(
    terms: RowTerms, labels: torch.Tensor, weight: float, spec: PairLossSpec
) -> PairLoss:
    """Sum of each pair's terms, then the mean over the pairs that are not ignored."""
    valid = labels != IGNORED_LABEL
    share = valid.to(terms.ce_first.dtype) / valid.sum().clamp(min=1)
    ce_first, ce_second = (terms.ce_first * share).sum(), (terms.ce_second * share).sum()
    over_batch = terms.similarity.dim() == 0
    similarity = terms.similarity if over_batch else (terms.similarity * share).sum()
    total = spec.ce_weight * (ce_first + ce_second)
    if weight > 0.0 and spec.similarity != "none":
        total = total + weight * similarity
    first_correct, second_correct = (top == labels for top in terms[3:])
    known = (terms.top_first >= 0) & (terms.top_second >= 0)
    agree = (terms.top_first == terms.top_second) & known
    return PairLoss(
        total=total,
        ce_first=ce_first.detach(),
        ce_second=ce_second.detach(),
        similarity=similarity.detach(),
        # The share of an ignored pair is 0.
        agreement=torch.where(agree, share, 0.0).sum(),
        correct_first=torch.where(first_correct, share, 0.0).sum(),
        correct_second=torch.where(second_correct, share, 0.0).sum(),
    )
