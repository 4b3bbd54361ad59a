"""Running statistics of batch normalisation, equal on all ranks after every step.

Each rank sees other images, so the running statistics of the ranks drift apart; DeepSpeed leaves
them so. They are averaged once a step (a few kilobytes in one all-reduce): every rank, and every
number of ranks, then evaluates the same network, and a checkpoint needs only one copy. The
average is also the copy that is put back when a step is skipped, since the forward pass of a
broken batch has already poisoned the statistics.

A network has some hundreds of buffers of a few bytes: they are copied by one call for all, as a GPU
waits for the host that starts a copy for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import nn


class SharedBuffers:
    """The buffers of ``module``, and their values after the last step that was taken."""

    @torch.no_grad()
    def __init__(self, module: nn.Module, world_size: int) -> None:
        self._world_size = world_size
        self._floats = [b for b in module.buffers() if b.is_floating_point()]
        self._others = [b for b in module.buffers() if not b.is_floating_point()]
        self._good_others = [b.clone() for b in self._others]
        sizes = [b.numel() for b in self._floats]
        device = self._floats[0].device if self._floats else None
        self._flat = torch.zeros(sum(sizes), device=device)
        parts = zip(torch.split(self._flat, sizes), self._floats, strict=True)
        self._good_floats = [part.view_as(buffer) for part, buffer in parts]
        self.remember()

    @torch.no_grad()
    def share(self) -> None:
        """Average floating-point buffers over the ranks, and remember all of them as good.

        The buffers that count (``num_batches_tracked``) are equal on all ranks by themselves.
        """
        self.remember()
        if self._world_size > 1 and self._floats:
            dist.all_reduce(self._flat)
            self._flat /= self._world_size
            _copy_all(self._good_floats, self._floats)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back the values that `share` or `remember` took for good."""
        _copy_all(self._good_floats, self._floats)
        _copy_all(self._good_others, self._others)

    @torch.no_grad()
    def remember(self) -> None:
        """Take the buffers for good as they are, where they are equal on all ranks already.

        `share` would change them: a sum of W equal numbers divided by W is rounded.
        """
        _copy_all(self._floats, self._good_floats)
        _copy_all(self._others, self._good_others)


def _copy_all(sources: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)
