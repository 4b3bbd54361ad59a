"""The pair loss in plain torch, for any floating type: the oracle of the native op.

    z = s x       logits of the scores x, with s = spec.logit_scale
    u = z / T     p = softmax(u of the first image)     q = softmax(u of the second image)
    CE(z, y)   = log(1 + sum_{c != y} exp(z_c - z_y)) + e (z_y - mean z)      e: label smoothing
                 with z_y = s psi(x_y) where there is a margin (margin.py)
    KL(p||q)   = sum p (log p - log q)          H(p, q) = - sum p log q         |p - q|^2

float16 and bfloat16 logits are computed in float32. Slow and clear; nothing here is fused.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distill.losses.checks import assert_label_values
from distill.losses.margin import RowMargins, logits_of, margined_target
from distill.losses.rbf import batch_mmd
from distill.losses.spec import IGNORED_LABEL, PairLossSpec, RowTerms, accumulation_dtype
from distill.losses.topk import grouped, primary_classes


def row_terms(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
    margins: RowMargins | None = None,
) -> RowTerms:
    """The terms of each pair.

    Args:
        first: scores of the first images, (B, C).
        second: scores of the second images, (B, C).
        labels: identities, (B,) int64; -1 ignores the pair.
        temperature: softening temperature T > 0.
        spec: the static choices.
        margins: of each image, (2B,), in place of those of ``spec``.
    """
    if labels.is_cuda:
        assert_label_values(labels, first.shape[1])
    x1, x2, valid = valid_rows(first, second, labels)
    z1, z2 = logits_of(x1, spec), logits_of(x2, spec)
    y = labels.clamp(min=0)
    own = margins.sides() if margins is not None else (None, None)
    terms = [
        cross_entropy(z, y, spec.label_smoothing, margined_target(x, y, spec, side)) * valid
        for z, x, side in ((z1, x1, own[0]), (z2, x2, own[1]))
    ]
    term = similarity(z1, z2, labels, temperature, spec)
    of_batch = term if spec.over_batch else None
    terms.append(torch.zeros_like(terms[0]) if spec.over_batch else term)
    extras = [x for z in (z1, z2) for x in softened(z.detach() / temperature, y)]
    return RowTerms(
        values=torch.stack(terms, 1),
        extras=torch.stack([x * valid for x in (*extras[::2], *extras[1::2])], 1),
        tops=torch.where(valid[:, None], torch.stack([top_class(x1), top_class(x2)], 1), -1),
        batch_similarity=of_batch,
    )


def softened(u: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Entropy of softmax(u) in nats, and its share of the labels' classes; (B,) each."""
    log_p = u.log_softmax(1)
    p = log_p.exp()
    entropy = -(p * torch.where(p == 0, 0.0, log_p)).sum(1)
    return entropy, p.gather(1, labels[:, None]).squeeze(1)


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float = 0.0,
    target: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of each row, (B,), with the target column left out of the sum.

    ``log1p(rest / exp(z_y))`` keeps the loss and its gradient where z_y stands so far above
    the others that ``logsumexp(z) - z_y`` rounds to 0.
    """
    column = labels[:, None]
    z_y = logits.gather(1, column).squeeze(1) if target is None else target
    rest = logits.scatter(1, column, float("-inf")).logsumexp(1)
    loss = -F.logsigmoid(z_y - rest)
    loss = torch.where(z_y == float("inf"), float("nan"), loss)  # an overflow is no success
    if smoothing > 0.0:
        others = logits.scatter(1, column, 0.0).sum(1)
        loss = loss + smoothing * (z_y - (others + z_y) / logits.shape[1])
    return loss


def similarity(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
) -> torch.Tensor:
    """Similarity of each pair, (B,), or of the batch, (); T^2 included where asked for."""
    valid = labels != IGNORED_LABEL
    if spec.similarity == "none":
        return torch.zeros_like(valid, dtype=first.dtype)
    u, v = first / temperature, second / temperature
    if spec.grouped:
        primary = primary_classes(first, labels, spec.topk_classes)
        u, v = grouped(u, primary), grouped(v, primary)
    if spec.over_batch:
        u, v = _held(u, v, spec)
        scale = spec.similarity_scale(temperature)
        return scale * batch_mmd(u.softmax(1), v.softmax(1), valid)
    return pair_similarity(u, v, temperature, spec) * valid


def pair_similarity(
    u: torch.Tensor, v: torch.Tensor, temperature: float, spec: PairLossSpec
) -> torch.Tensor:
    """Similarity of each pair, (B,), of softened logits; T^2 included where asked for."""
    return spec.similarity_scale(temperature) * _pair_similarity(*_held(u, v, spec), spec)


def _held(
    u: torch.Tensor, v: torch.Tensor, spec: PairLossSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides, the one that is a constant without gradient."""
    first, second = spec.stop_gradient == "first", spec.stop_gradient == "second"
    return u.detach() if first else u, v.detach() if second else v


def _pair_similarity(u: torch.Tensor, v: torch.Tensor, spec: PairLossSpec) -> torch.Tensor:
    if spec.similarity == "mmd":
        return (u.softmax(1) - v.softmax(1)).square().sum(1)
    one_way = kl_divergence if spec.similarity == "kl" else soft_cross_entropy
    forward, reverse = spec.direction_weights
    total = torch.zeros_like(u[:, 0])
    if forward:
        total = total + forward * one_way(u, v)
    if reverse:
        total = total + reverse * one_way(v, u)
    return total


def kl_divergence(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """KL(softmax(u) || softmax(v)) of each row; classes with p = 0 add nothing."""
    a, b = u.log_softmax(1), v.log_softmax(1)
    p = a.exp()
    return (p * torch.where(p == 0, 0.0, a - b)).sum(1)


def soft_cross_entropy(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """H(softmax(u), softmax(v)) of each row; classes with p = 0 add nothing."""
    p, b = u.softmax(1), v.log_softmax(1)
    return -(p * torch.where(p == 0, 0.0, b)).sum(1)


def top_class(logits: torch.Tensor) -> torch.Tensor:
    """Arg-max of each row, (B,) int64; -1 in rows with NaN."""
    values, indices = logits.detach().max(1)
    return torch.where(values.isnan(), -1, indices)


def valid_rows(
    first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both logits in the type to compute with, and which pairs are valid, (B,) bool.

    Rows of ignored pairs become zeros: nothing in them reaches the loss or the gradient.
    """
    valid = labels != IGNORED_LABEL
    dtype = accumulation_dtype(first)
    z1, z2 = (torch.where(valid[:, None], z.to(dtype), 0.0) for z in (first, second))
    return z1, z2, valid
