"""Loss scaling for fp16, the same for every ZeRO stage.

The loss is multiplied by a power of two, and the gradients are divided by it just before the
optimizer uses them: both are exact in binary floating point. Doubling after a run of good steps
and halving after an overflow follow Micikevicius et al., "Mixed Precision Training" (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

INITIAL_SCALE = 2.0**16
SMALLEST_SCALE, LARGEST_SCALE = 1.0, 2.0**24
GOOD_STEPS_BEFORE_DOUBLING = 2000


@dataclass
class LossScale:
    """The scale, and the good steps since it last changed; a constant 1 where not ``dynamic``."""

    dynamic: bool
    scale: float = 1.0
    good_steps: int = 0

    @classmethod
    def for_precision(cls, precision: str) -> LossScale:
        """Dynamic for ``fp16``; float32 and bfloat16 have range enough and need none."""
        if precision == "fp16":
            return cls(dynamic=True, scale=INITIAL_SCALE)
        return cls(dynamic=False)

    def update(self, *, skipped: bool) -> bool:
        """Take note of a step that was made, or skipped because a gradient was not finite.

        Returns:
            Whether the scale was too large, perhaps, and is smaller now.
        """
        if not self.dynamic:
            return False
        if skipped:
            falls = self.scale > SMALLEST_SCALE
            self.scale, self.good_steps = max(self.scale / 2, SMALLEST_SCALE), 0
            return falls
        self.good_steps += 1
        if self.good_steps >= GOOD_STEPS_BEFORE_DOUBLING:
            self.scale, self.good_steps = min(self.scale * 2, LARGEST_SCALE), 0
        return False

    def unscale_before_steps_of(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients ``optimizer`` is about to use by the scale of that moment."""
        if self.dynamic:
            optimizer.register_step_pre_hook(self._unscale)

    def _unscale(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if grads:
            torch._foreach_mul_(grads, 1.0 / self.scale)
