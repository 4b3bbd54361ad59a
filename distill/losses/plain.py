"""The pair loss as one writes it with `torch.nn.functional`: the yardstick of tests and benchmarks.

Not the oracle (that is `reference.py`, which keeps more digits): what a user would have today. No
entropies and probabilities: who wants speed would not compute them.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distill.losses.margin import RowMargins, logits_of, margined_logits
from distill.losses.spec import IGNORED_LABEL, PairLossSpec, RowTerms, accumulation_dtype


def row_terms(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
    margins: RowMargins | None = None,
) -> RowTerms:
    """The terms of each pair; float16 and bfloat16 computed in float32, as autocast does.

    Args:
        first: scores of the first images, (B, C).
        second: scores of the second images, (B, C).
        labels: identities, (B,) int64; -1 ignores the pair.
        temperature: softening temperature T > 0.
        spec: the static choices; the RBF discrepancy and grouped classes are
            left out.
        margins: of each image, (2B,), in place of those of ``spec``.
    """
    own = margins.sides() if margins is not None else (None, None)
    x1, x2 = (x.to(accumulation_dtype(x)) for x in (first, second))
    ce_first, ce_second = (
        F.cross_entropy(
            margined_logits(x, labels, spec, side),
            labels,
            reduction="none",
            ignore_index=IGNORED_LABEL,
            label_smoothing=spec.label_smoothing,
        )
        for x, side in ((x1, own[0]), (x2, own[1]))
    )
    z1, z2 = logits_of(x1, spec), logits_of(x2, spec)
    similarity = spec.similarity_scale(temperature) * _similarity(z1, z2, temperature, spec)
    return RowTerms(
        values=torch.stack([ce_first, ce_second, similarity * (labels != IGNORED_LABEL)], 1),
        extras=None,
        tops=torch.stack([z1.argmax(1), z2.argmax(1)], 1),
    )


def _similarity(
    z1: torch.Tensor, z2: torch.Tensor, temperature: float, spec: PairLossSpec
) -> torch.Tensor:
    if spec.similarity == "none":
        return torch.zeros_like(z1[:, 0])
    a, b = F.log_softmax(z1 / temperature, 1), F.log_softmax(z2 / temperature, 1)
    if spec.similarity == "mmd":
        return (a.exp() - b.exp()).square().sum(1)
    forward, reverse = spec.direction_weights
    value = torch.zeros_like(z1[:, 0])
    for weight, x, y in ((forward, a, b), (reverse, b, a)):
        if weight and spec.similarity == "kl":
            value = value + weight * F.kl_div(y, x, reduction="none", log_target=True).sum(1)
        elif weight:
            value = value - weight * (x.exp() * y).sum(1)
    return value
