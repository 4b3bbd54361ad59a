"""One gradient norm over DeepSpeed's parameters and those of a head beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def join_norm(zero: Any, stage: int, norm_beside: Callable[[], torch.Tensor]) -> None:
    """Make DeepSpeed's optimizer ``zero`` of stages 1 to 3 count ``norm_beside`` in.

    It asks for its norm once a step, by a method that is replaced here; what comes back decides
    whether the step is made, and how its gradients are clipped. A norm that is not finite has it
    skip the step.
    """
    if stage == 3:
        groups = zero._get_norm_groups
        zero._get_norm_groups = lambda: [*groups(), norm_beside()]
    else:
        norm = zero.scaled_global_norm
        zero.scaled_global_norm = lambda: joint_norm(norm(), norm_beside())


def joint_norm(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """2-norm of two parts; infinite where one of them is no norm (DeepSpeed says -1 of NaN)."""
    both = torch.stack((one.float(), other.float()))
    good = (torch.isfinite(both) & (both >= 0)).all()
    return torch.where(good, torch.linalg.vector_norm(both), torch.inf)


def clip_factor(norm: float, limit: float) -> float:
    """What gradients of ``norm`` are multiplied by, as torch and DeepSpeed do; ``limit`` 0: 1."""
    return min(1.0, limit / (norm + 1e-6)) if limit else 1.0
