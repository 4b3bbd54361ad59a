"""torch's optimizers with the parameter groups of this project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from distill.config.tree import OptimizerConfig

MOMENTS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum_buffer",),
    "adamw": ("exp_avg", "exp_avg_sq"),
}
"""Tensors an optimizer keeps for each parameter, by the names torch gives them."""


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over the trainable parameters of ``module``.

    Two groups: matrices and filters with weight decay, vectors (biases, normalisation, PReLU)
    without. The learning rate is the peak; `Engine.set_lr` sets the one of each step.
    ``fused`` asks for torch's update in one kernel; None leaves it to torch.
    """
    groups = parameter_groups(module, config.weight_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=fused)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with and without decay, in the order of ``module.named_parameters()``."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def moments_of(config: OptimizerConfig) -> tuple[str, ...]:
    """Names of the tensors kept for each parameter; none for SGD without momentum."""
    if config.name == "sgd" and config.momentum == 0.0:
        return ()
    return MOMENTS[config.name]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def state_of(
    optimizer: torch.optim.Optimizer, tensor: torch.Tensor, moments: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Moments of ``tensor``; zeros are put in place where the optimizer has made none yet.

    A zero moment is what torch starts from: AdamW creates zeros, and SGD's first buffer is the
    gradient itself, which is what a zero buffer becomes (dampening is 0).
    """
    state = optimizer.state[tensor]
    for name in moments:
        if state.get(name) is None:
            state[name] = torch.zeros_like(tensor, memory_format=torch.preserve_format)
    if "exp_avg" in moments and "step" not in state:
        where = tensor.device if optimizer.defaults.get("fused") else None
        state["step"] = torch.zeros((), dtype=torch.float32, device=where)
    return {name: state[name] for name in moments}


def get_updates(optimizer: torch.optim.Optimizer, moments: tuple[str, ...]) -> int:
    """Updates made so far, as AdamW counts them for its bias correction; 0 for SGD."""
    if "exp_avg" not in moments:
        return 0
    counts = {int(s["step"]) for s in optimizer.state.values() if "step" in s}
    assert len(counts) <= 1, f"parameters disagree on the number of updates: {counts}"
    return counts.pop() if counts else 0


def set_updates(optimizer: torch.optim.Optimizer, updates: int) -> None:
    """Set AdamW's count of updates of every parameter (moments must be in place)."""
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].fill_(float(updates))


def copy_updates(source: torch.optim.Optimizer, target: torch.optim.Optimizer) -> None:
    """Give ``target``, of parameters in the same order, the count of ``source``, unread."""
    for of, to in zip(source.state.values(), target.state.values(), strict=True):
        if "step" in of:
            to["step"].copy_(of["step"])
