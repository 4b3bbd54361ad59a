"""Single images against a head: by `linear_cross_entropy`, and by torch over whole scores."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from distill.losses import PairLossSpec, RowLoss, RowMargins, linear_cross_entropy, margined_logits

sys.path.insert(0, str(Path(__file__).parent))
from linear_cases import Inputs, cosines, row_margins

WORDS = {"chunk_classes": 5}


def leaves_of(inputs: Inputs) -> list[torch.Tensor]:
    """Fresh leaves: features, the weight, and the bias where there is one."""
    tensors = (inputs.first, inputs.weight, inputs.bias)
    return [t.detach().clone().requires_grad_() for t in tensors if t is not None]


def margins_of(images: int, seed: int = 0) -> RowMargins:
    """Margins of that many images, angles of both signs."""
    return RowMargins(*(one[:images] for one in row_margins(images, seed)))


def by_torch(
    inputs: Inputs, spec: PairLossSpec, head: str, margins: RowMargins | None = None
) -> list[torch.Tensor]:
    """Losses of every image, who is right, then the gradients of their weighted mean."""
    leaves = leaves_of(inputs)
    features, weight, *bias = leaves
    scores = cosines(features, weight) if head == "cosine" else F.linear(features, weight, *bias)
    labels, valid = inputs.labels, inputs.labels >= 0
    ce = F.cross_entropy(
        margined_logits(scores, labels, spec, margins),
        labels,
        reduction="none",
        ignore_index=-1,
        label_smoothing=spec.label_smoothing,
    )
    weights = valid.to(ce.dtype)
    if inputs.sample_weights is not None:
        weights = weights * inputs.sample_weights
    mean = (weights * ce).sum() / weights.sum()
    gradients = torch.autograd.grad(mean, leaves)
    right = (scores.argmax(1) == labels) & valid
    return [ce.detach(), weights, right, mean.detach(), *gradients]


def loss_of(
    leaves: list[torch.Tensor],
    inputs: Inputs,
    spec: PairLossSpec,
    head: str,
    implementation: str = "reference",
    **options,
) -> RowLoss:
    """`linear_cross_entropy` of ``leaves``, with the labels and sample weights of ``inputs``."""
    features, weight, *bias = leaves
    return linear_cross_entropy(
        features,
        weight,
        inputs.labels,
        bias=bias[0] if bias else None,
        spec=spec,
        head=head,
        sample_weights=inputs.sample_weights,
        implementation=implementation,
        **WORDS | options,
    )


def by_chunks(
    inputs: Inputs, spec: PairLossSpec, head: str, implementation: str = "reference", **options
) -> list[torch.Tensor]:
    """Total, cross-entropy and accuracy, then the gradients of the total."""
    leaves = leaves_of(inputs)
    loss = loss_of(leaves, inputs, spec, head, implementation, **options)
    gradients = torch.autograd.grad(loss.total.sum(), leaves)
    return [x.detach() for x in (*loss, *gradients)]
