"""One gradient norm over DeepSpeed's parameters and those of a head beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def take_norm(zero: Any, stage: int, norm_beside: Callable[[], torch.Tensor] | None = None) -> None:
    """Have DeepSpeed's optimizer ``zero`` of stages 1 to 3 see its norm on the host.

    It asks for its norm once a step, by a method that is replaced here, and then looks at it again
    for each group of parameters, between updates; on a GPU the host would wait each time for all
    of them. What comes back decides whether the step is made, and how its gradients are
    clipped. A norm that is not finite has it skip the step.

    Args:
        zero: the optimizer.
        stage: of ZeRO.
        norm_beside: of what else counts, a scalar; a collective.
    """
    if stage == 3:
        groups = zero._get_norm_groups

        def norms() -> list[torch.Tensor]:
            found = groups() if norm_beside is None else [*groups(), norm_beside()]
            return list(torch.stack(found).cpu().unbind())

        zero._get_norm_groups = norms
        return
    norm = zero.scaled_global_norm

    def whole() -> torch.Tensor:
        found = norm() if norm_beside is None else joint_norm(norm(), norm_beside())
        return found.cpu()

    zero.scaled_global_norm = whole


def joint_norm(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """2-norm of two parts; infinite where one of them is no norm (DeepSpeed says -1 of NaN)."""
    both = torch.stack((one.float(), other.float()))
    good = (torch.isfinite(both) & (both >= 0)).all()
    return torch.where(good, torch.linalg.vector_norm(both), torch.inf)


def clip_factor(norm: float, limit: float) -> float:
    """What gradients of ``norm`` are multiplied by, as torch and DeepSpeed do; ``limit`` 0: 1."""
    return min(1.0, limit / (norm + 1e-6)) if limit else 1.0
