"""Squared maximum mean discrepancy of a batch of answers, with several Gaussian kernels.

    MMD^2 = mean_ij k(p_i, p_j) + mean_ij k(q_i, q_j) - 2 mean_ij k(p_i, q_j)
    k(x, y) = mean over the multiples m of exp(-|x - y|^2 / (m s)),   m = 1/4, 1/2, 1, 2, 4

The biased estimate of Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), eq. (5): never
negative, and defined for one pair. The bandwidth s is the mean squared distance over the pooled
answers (different rows), a constant for the gradient; factors of 2 around it as in Long et al.,
"Learning Transferable Features with Deep Adaptation Networks", ICML 2015, section 4.1. The mean
and not the median: a median needs a sort, and its ties make it jump from one batch to the next.
"""

from __future__ import annotations

import torch

BANDWIDTH_MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)


def batch_mmd(p: torch.Tensor, q: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """MMD^2 between the rows of p and of q that are valid, a scalar; 0 where none is.

    Args:
        p: softened answers to the first images, (B, C), rows sum to 1.
        q: softened answers to the second images, (B, C).
        valid: (B,) bool.
    """
    pooled = torch.cat([p, q])
    weights = valid.to(p.dtype) / valid.sum().clamp(min=1)
    signed = torch.cat([weights, -weights])
    distance = _squared_distances(pooled)
    kernel = _kernel(distance, _bandwidth(distance.detach(), valid))
    return signed @ kernel @ signed


def _squared_distances(rows: torch.Tensor) -> torch.Tensor:
    """(N, N) squared distances, exactly 0 on the diagonal, by one matrix product."""
    gram = rows @ rows.T
    square = gram.diagonal()
    distance = (square[:, None] + square[None, :] - 2.0 * gram).clamp(min=0.0)
    return distance.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), 0.0)


def _bandwidth(distance: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean squared distance between different valid rows of the pooled 2B, a scalar > 0."""
    w = torch.cat([valid, valid]).to(distance.dtype)
    n = w.sum()
    mean = (w @ distance @ w) / (n * (n - 1.0)).clamp(min=1.0)
    return mean.clamp(min=torch.finfo(distance.dtype).eps)


def _kernel(distance: torch.Tensor, bandwidth: torch.Tensor) -> torch.Tensor:
    parts = [torch.exp(-distance / (m * bandwidth)) for m in BANDWIDTH_MULTIPLES]
    return torch.stack(parts).mean(0)
