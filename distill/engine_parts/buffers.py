"""Running statistics of batch normalisation, equal on all ranks after every step.

Each rank sees other images, so the running statistics of the ranks drift apart; DeepSpeed leaves
them so. They are averaged once a step (a few kilobytes in one all-reduce): every rank, and every
number of ranks, then evaluates the same network, and a checkpoint needs only one copy. The
average is also the copy that is put back when a step is skipped, since the forward pass of a
broken batch has already poisoned the statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import nn


class SharedBuffers:
    """The buffers of ``module``, and their values after the last step that was taken."""

    def __init__(self, module: nn.Module, world_size: int) -> None:
        self._world_size = world_size
        self._floats = [b for b in module.buffers() if b.is_floating_point()]
        self._others = [b for b in module.buffers() if not b.is_floating_point()]
        self._flat = self._read()
        self._good_others = [b.clone() for b in self._others]

    @torch.no_grad()
    def share(self) -> None:
        """Average floating-point buffers over the ranks, and remember all of them as good.

        The buffers that count (``num_batches_tracked``) are equal on all ranks by themselves.
        """
        self._flat = self._read()
        if self._world_size > 1 and self._flat.numel():
            dist.all_reduce(self._flat)
            self._flat /= self._world_size
            self._write()
        self._good_others = [b.clone() for b in self._others]

    @torch.no_grad()
    def restore(self) -> None:
        """Put back the values that `share` remembered."""
        self._write()
        for buffer, good in zip(self._others, self._good_others, strict=True):
            buffer.copy_(good)

    def _read(self) -> torch.Tensor:
        if not self._floats:
            return torch.zeros(0)
        return torch.cat([b.detach().flatten().float() for b in self._floats])

    def _write(self) -> None:
        sizes = [b.numel() for b in self._floats]
        for buffer, values in zip(self._floats, torch.split(self._flat, sizes), strict=True):
            buffer.copy_(values.view_as(buffer))
