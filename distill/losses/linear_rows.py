"""The cross-entropy of single images from features and the weight of the last layer.

What everybody trains a face classifier by, without pairs: the yardstick of what pairs bring. It is
streamed as `linear.py` does, two images at a time (`linear_single.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from distill.losses import fused
from distill.losses.choice import implementation_name
from distill.losses.linear import Head, check, plan_of, unit_rows
from distill.losses.linear_checks import RowArguments
from distill.losses.linear_state import Choices
from distill.losses.linear_stream import linear_values
from distill.losses.margin import RowMargins
from distill.losses.pair import weights_of
from distill.losses.sharded import ClassShards
from distill.losses.spec import (
    IGNORED_LABEL,
    Implementation,
    PairLossSpec,
    Reduction,
    RowLoss,
    RowTerms,
)


def linear_cross_entropy(
    features: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    spec: PairLossSpec,
    bias: torch.Tensor | None = None,
    head: Head = "linear",
    sample_weights: torch.Tensor | None = None,
    margins: RowMargins | None = None,
    reduction: Reduction = "mean",
    memory_budget_bytes: int | None = None,
    chunk_classes: int | None = None,
    implementation: Implementation = "auto",
    shards: ClassShards | None = None,
) -> RowLoss:
    """Cross-entropy of the scores ``features @ weight.T + bias``, or of their cosines.

    Memory is that of `linear_pair_loss` for half as many pairs: it does not grow with C.

    Args:
        features: a row for each image, (N, D); float64/32/16 or bfloat16.
        weight: (C, D) or (C, K, D), as in `linear_pair_loss`.
        labels: identities, (N,) int64 in [0, C), or -1 for an image to ignore.
        spec: label smoothing, scale and margins; what is about similarity does not matter.
        bias: (C,) for a linear head, or None.
        head: ``linear`` or ``cosine``.
        sample_weights: (N,), or None for equal ones; the mean is over their sum.
        margins: of each image, (N,), for a cosine head.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget_bytes: as in `linear_pair_loss`.
        chunk_classes: as in `linear_pair_loss`.
        implementation: as in `linear_pair_loss`.
        shards: as in `linear_pair_loss`; the ranks tell each other 3 numbers an image, or 4.

    Raises:
        UserError: as `linear_pair_loss`.
        RuntimeError: in backward, where a second derivative is asked for.
    """
    device = features.device.type
    spec = spec.without_similarity
    arguments = RowArguments(
        rows=features,
        weight=weight,
        bias=bias,
        labels=labels,
        sample_weights=sample_weights,
        margins=margins,
        spec=spec,
        head=head,
        reduction=reduction,
        memory_budget_bytes=memory_budget_bytes,
        chunk_classes=chunk_classes,
        implementation=implementation_name(implementation, device),
    )
    check(arguments, shards)
    with torch.autocast(device, enabled=False):
        rows, own, table = two_at_a_time(features, labels, margins, cosine=head == "cosine")
        choices = Choices.of(spec, 1.0)  # at T = 1 one exp a score does for all
        plan = plan_of(arguments, choices, rows, shards, single=True)
        terms = linear_values(rows, weight, bias, own, table, plan)
        return reduce_rows(terms, labels, sample_weights, reduction)


class Halves(NamedTuple):
    """N images as pairs of unrelated ones, the last one with a row of zeros where N is odd.

    Attributes:
        rows: (2B, D), 2B = N or N + 1, of unit length for a cosine head.
        labels: of both sides, (B, 2).
        margins: as the steps take them, (B, 6), or None.
    """

    rows: torch.Tensor
    labels: torch.Tensor
    margins: torch.Tensor | None


def two_at_a_time(
    features: torch.Tensor, labels: torch.Tensor, margins: RowMargins | None, *, cosine: bool
) -> Halves:
    """Images (N, D) as the streaming steps take them.

    Ignored ones become zeros: nothing in them reaches a score.
    """
    missing = len(features) % 2
    kept = torch.where((labels != IGNORED_LABEL)[:, None], features, 0.0)
    join = unit_rows if cosine else torch.cat
    rows = join((kept, kept.new_zeros(missing, kept.shape[1])))
    own = F.pad(labels, (0, missing), value=IGNORED_LABEL).view(2, -1).T
    if margins is not None:
        margins = RowMargins(*(F.pad(one, (0, missing)) for one in margins))
    return Halves(rows, own, fused.margin_table(margins, rows))


def reduce_rows(
    terms: RowTerms,
    labels: torch.Tensor,
    sample_weights: torch.Tensor | None = None,
    reduction: Reduction = "mean",
) -> RowLoss:
    """The loss of N images, (N,) labels, from the terms of pairs of them."""
    ce = terms.values[:, :2].T.flatten()[: len(labels)]
    correct = (terms.tops.T.flatten()[: len(labels)] == labels) & (labels != IGNORED_LABEL)
    of_row, share = weights_of(labels, sample_weights, ce.dtype)
    told = torch.stack([ce.detach(), correct.to(ce.dtype)])
    if reduction == "none":
        return RowLoss(of_row * ce, *told)
    return RowLoss((share if reduction == "mean" else of_row) @ ce, *(told @ share))
