"""Training of a class-sharded head beside DeepSpeed: this rank's rows, gradients and moments.

What the ranks must agree on is one number, the norm of the gradient over all of them. It goes into
the norm of the whole model, which decides for backbone and head alike whether a step is made and
how it is clipped; or whether alone, with `optimizer.clip_head` false.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from distill.collectives import all_reduce_sum
from distill.engine_parts.fragments import Held
from distill.engine_parts.optimizer import (
    build_optimizer,
    copy_updates,
    moments_of,
    set_lr,
    set_updates,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.config.tree import OptimizerConfig
    from distill.engine_parts.fragments import Fragment
    from distill.engine_parts.loss_scale import LossScale
    from distill.heads import ClassRanges, CosineHead, LinearHead, ShardedHead

HEAD_PREFIX = "head."
"""Of the names of a head's parameters, as they are in a whole classifier; one row a class."""


class HeadTrainer:
    """A sharded head, its optimizer, and the rows that the step at hand is about.

    Without sampling these are the parameters themselves. Of a sample they are copies: only they
    get a gradient, only their moments are read, and after the update they are written back. No
    other row of weight or moments is touched: it does not decay, nor does its momentum move it.
    """

    def __init__(self, head: ShardedHead, config: OptimizerConfig, scale: LossScale) -> None:
        self.head = head
        self._config, self._scale = config, scale
        self._moments = moments_of(config)
        self._optimizer = self._optimizer_of(head.local)
        self._sample: _Sample | None = None
        for parameter in head.local.parameters():
            state_of(self._optimizer, parameter, self._moments)

    def _optimizer_of(self, module: nn.Module) -> torch.optim.Optimizer:
        # Fused: an update in one pass, without temporary copies as large as the head.
        optimizer = build_optimizer(module, self._config, fused=True)
        self._scale.unscale_before_steps_of(optimizer)
        return optimizer

    @property
    def ranges(self) -> ClassRanges:
        """The classes of all ranks."""
        return self.head.ranges

    @property
    def weight(self) -> torch.Tensor:
        """Rows in use, (n, D)."""
        return self._used.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """Their bias, (n,), or None for a cosine head."""
        return self._used.bias

    @property
    def _used(self) -> LinearHead | CosineHead | _Sample:
        return self.head.local if self._sample is None else self._sample

    def take(self, rows: torch.Tensor | None) -> None:
        """Let the step that begins be about ``rows``, (n,) int64 without repetition, or all."""
        self._sample = None if rows is None else _Sample(self.head.local, rows)

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next update."""
        set_lr(self._optimizer, lr)

    def gradient_norm(self) -> torch.Tensor:
        """2-norm of the gradient over all ranks, loss scale included, float32; a collective."""
        squares = [torch.linalg.vector_norm(g).double().square() for g in self._gradients()]
        return all_reduce_sum(torch.stack(squares).sum()).sqrt().float()

    def _gradients(self) -> list[torch.Tensor]:
        used = (self.weight, self.bias)
        return [one.grad for one in used if one is not None and one.grad is not None]

    @torch.no_grad()
    def update(self, factor: float) -> None:
        """Make the update from the gradient times ``factor``."""
        if factor != 1.0:
            torch._foreach_mul_(self._gradients(), factor)
        if self._sample is None:
            self._optimizer.step()
        else:
            self._update_rows(self._sample)
        self.drop()

    def drop(self) -> None:
        """Forget the gradient."""
        self._optimizer.zero_grad(set_to_none=True)
        self._sample = None

    def _update_rows(self, sample: _Sample) -> None:
        """Update the copies with copies of their moments, then write all of them back."""
        optimizer, rows = self._optimizer_of(sample), sample.rows
        set_lr(optimizer, self._optimizer.param_groups[0]["lr"])
        wholes = list(self.head.local.parameters())
        for copy, whole in zip(sample.parameters(), wholes, strict=True):
            into, of = state_of(optimizer, copy, self._moments), self._state(whole)
            for name in self._moments:
                torch.index_select(of[name], 0, rows, out=into[name])
        copy_updates(self._optimizer, optimizer)
        optimizer.step()
        copy_updates(optimizer, self._optimizer)
        for copy, whole in zip(sample.parameters(), wholes, strict=True):
            whole.index_copy_(0, rows, copy)
            for name, moment in state_of(optimizer, copy, self._moments).items():
                self._state(whole)[name].index_copy_(0, rows, moment)

    def _state(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        return state_of(self._optimizer, parameter, self._moments)

    # What a checkpoint reads and writes.

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the whole parameters, over all ranks."""
        return {
            HEAD_PREFIX + name: (self.ranges.classes, *parameter.shape[1:])
            for name, parameter in self.head.local.named_parameters()
        }

    def fragments(self, kind: str) -> list[Fragment]:
        """This rank's rows of the weights (``kind`` "weight") or of one of the moments."""
        return [held.fragment(kind, self._optimizer, self._moments) for held in self._held()]

    def _held(self) -> Iterator[Held]:
        for name, parameter in self.head.local.named_parameters():
            start = self.ranges.mine.start * parameter[0].numel()
            yield Held(HEAD_PREFIX + name, start, parameter, 0, parameter.numel())

    def finish_load(self, updates: int) -> None:
        """After fragments were written to."""
        set_updates(self._optimizer, updates)


class _Sample(nn.Module):
    """Copies of some rows of a head, in the order of its parameters."""

    def __init__(self, local: LinearHead | CosineHead, rows: torch.Tensor) -> None:
        super().__init__()
        self.rows = rows
        self.weight = nn.Parameter(local.weight.detach().index_select(0, rows))
        self.bias = None
        if local.bias is not None:
            self.bias = nn.Parameter(local.bias.detach().index_select(0, rows))
