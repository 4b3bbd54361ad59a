"""What is said of steps that went wrong: losses that are not finite, losses that jump."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_IDS_SHOWN = 8


def nonfinite_text(step: int, blamed: Mapping[int, Sequence[int]]) -> str:
    """What was not finite in step ``step``, and where.

    Args:
        step: the step, counted from 1.
        blamed: sample ids by rank, as in `distill.step.StepReport`.
    """
    if not blamed:
        return f"step {step}: a gradient is not finite, though the loss is, on all ranks"
    places = (f"rank {rank} (pairs {_shortened(ids)})" for rank, ids in sorted(blamed.items()))
    return f"step {step}: the loss is not finite on {' and '.join(places)}"


def _shortened(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_IDS_SHOWN]))
    return shown if len(ids) <= _IDS_SHOWN else f"{shown} and {len(ids) - _IDS_SHOWN} more"


class LossSpikes:
    """Tells a jump of the loss from its usual noise.

    Keeps exponential means of the loss and of its squared deviation. All ranks see the same mean
    loss, and so come to the same answer without a word.

    Args:
        memory: steps over which the means forget.
        deviations: standard deviations above the mean that count as a jump.
        quiet: first steps, which are only learnt from.
        in_a_row: jumps one after another that are no noise any more: what is usual is then learnt
            anew. Else a run that stays worse would write down every step from there on.
    """

    def __init__(
        self, memory: int = 50, deviations: float = 6.0, quiet: int = 50, in_a_row: int = 5
    ) -> None:
        self._keep, self._deviations, self._quiet = 1.0 - 1.0 / memory, deviations, quiet
        self._mean = self._variance = 0.0
        self._seen = self._jumps = 0
        self._in_a_row = in_a_row

    def see(self, loss: float) -> bool:
        """Take note of a step's loss; whether it is a spike (a loss that is not finite is none)."""
        if not math.isfinite(loss):
            return False
        above = loss - self._mean
        # The floor keeps a run that has converged from calling every flicker a spike.
        usual = math.sqrt(self._variance) + 0.05 * abs(self._mean)
        spike = self._seen >= self._quiet and above > self._deviations * usual
        self._jumps = self._jumps + 1 if spike else 0
        if self._jumps == self._in_a_row:
            self._seen, self._jumps, self._variance = 0, 0, 0.0
        if self._seen == 0:
            self._mean = loss
        elif not spike:
            self._mean += (1.0 - self._keep) * above
            self._variance = self._keep * (self._variance + (1.0 - self._keep) * above * above)
        self._seen += 1
        return spike
