"""Blocks of a backbone that forget their activations in forward and make them again in backward.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. What stays of a block is
its input; one more forward pass is what that costs. No number changes: random numbers are drawn
again as they were, and running statistics see each batch once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from distill.errors import UserError

_STATISTICS = "running_mean"
_PUT_ASIDE = "_statistics_put_aside"


class Unit(nn.Module):
    """A module that takes one tensor, and is forgotten and made again as a whole.

    Hooks run again too, which DeepSpeed's ZeRO 3 needs: it gathers weights in them.

    Attributes:
        recompute: whether it is; without it this is any module.
    """

    recompute = False

    def __call__(self, x: torch.Tensor) -> Any:
        """What ``forward`` makes of ``x``."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, x, use_reentrant=False)
        return super().__call__(x)


class UnitSequence(Unit, nn.Sequential):
    """Layers in a row that are forgotten together."""


def recompute_blocks(backbone: nn.Module, name: str) -> None:
    """Make the units of ``backbone``, or the blocks of a timm network, forget.

    Args:
        backbone: a backbone for training.
        name: the setting ``model.name``, for the error.

    Raises:
        UserError: it has no blocks that can.
    """
    units = [module for module in backbone.modules() if isinstance(module, Unit)]
    for unit in units:
        unit.recompute = True
    if not units and not _timm_can(backbone):
        raise UserError(
            f'model.recompute = "blocks": {name} has no blocks that can be made again',
            fix='set model.recompute to "none", or choose another model.name',
        )
    for module in backbone.modules():
        if getattr(module, _STATISTICS, None) is not None:
            module.register_forward_pre_hook(_put_aside)
            module.register_forward_hook(_put_back, always_call=True)


def _timm_can(backbone: nn.Module) -> bool:
    """Switch on timm's own way of the same, where the network has it."""
    switch = getattr(getattr(backbone, "network", None), "set_grad_checkpointing", None)
    if switch is None:
        return False
    try:
        switch(True)
    except AssertionError:  # how timm's networks say that they cannot
        return False
    return True


def _put_aside(module: nn.Module, _inputs: Any) -> None:
    """In a block that is made again, running statistics are copies that are thrown away."""
    # In a graph that is compiled, changes of statistics are not a part of what is made again.
    if torch.compiler.is_compiling():
        return
    # torch tells the id of the backward pass that this thread is in, or -1; whoever asked for the
    # forward pass within it, we or timm.
    if torch._C._current_graph_task_id() == -1:
        return
    module.__dict__[_PUT_ASIDE] = dict(module._buffers)
    copies = {key: None if b is None else b.clone() for key, b in module._buffers.items()}
    module._buffers.update(copies)


def _put_back(module: nn.Module, *_: Any) -> None:
    """After `_put_aside`; called too where torch stops within the module, having all it needs."""
    if not torch.compiler.is_compiling():
        module._buffers.update(module.__dict__.pop(_PUT_ASIDE, {}))
