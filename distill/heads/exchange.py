"""Embeddings between ranks that each have some images and some classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distill.collectives import gathered

# torch before 2.13 knows it by its older name alone.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gathered_embeddings(rows: torch.Tensor) -> torch.Tensor:
    """Embeddings of all W ranks, (W, N, D), with a gradient: see `_Gathered`."""
    found: torch.Tensor = _Gathered.apply(rows)  # type: ignore[no-untyped-call]
    return found


class _Gathered(torch.autograd.Function):
    """Rows of all ranks in forward; in backward each rank gets the gradient of its own.

    Every rank computes the loss of the whole batch, and of its gradient what its own classes
    contribute: the whole one is a sum over ranks, of which each needs its rows, a reduce-scatter.
    It is W times that sum which goes on, because the gradients of the backbone, of which each rank
    has what its own images contribute, are averaged over the ranks and not added.

    Sums are in float32 where the embeddings are narrower: one rounding, and not one a rank.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.dtype = rows.dtype
        return gathered(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        world_size = len(wide)
        if world_size == 1:
            return gradient[0]
        mine = torch.empty_like(wide[0])
        _reduce_scatter(mine, wide.contiguous().flatten(0, 1))
        return mine.mul_(world_size).to(ctx.dtype)
