"""What is said of steps that went wrong: losses that are not finite, losses that jump."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from distill.schedules import peak_lr, temperature_at, weight_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from distill.config import Config

_IDS_SHOWN = 8
_SEVERAL = 4.0
"""Times beyond what is usual from which a setting is named."""
_USUAL_LR = {"sgd": 0.1, "adamw": 1e-3}
_ROUNDING = 2.0**-23
"""Of float32, relative."""


def nonfinite_text(step: int, blamed: Mapping[int, Sequence[int]], loss: float) -> str:
    """What was not finite in step ``step``, and where.

    Args:
        step: the step, counted from 1.
        blamed: sample ids by rank, as in `distill.step.StepReport`.
        loss: mean of all ranks. Where they share the head it is that of all embeddings, and may not
            be finite though nobody's are to blame: a weight of the head is, or a setting.
    """
    if not blamed and not math.isfinite(loss):
        return f"step {step}: the loss is not finite, though all embeddings are, on all ranks"
    if not blamed:
        return f"step {step}: a gradient is not finite, though the loss is, on all ranks"
    places = (f"rank {rank} (pairs {_shortened(ids)})" for rank, ids in sorted(blamed.items()))
    return f"step {step}: the loss is not finite on {' and '.join(places)}"


def _shortened(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_IDS_SHOWN]))
    return shown if len(ids) <= _IDS_SHOWN else f"{shown} and {len(ids) - _IDS_SHOWN} more"


def nonfinite_remedies(config: Config, step: int, updates: int) -> list[str]:
    """What may help where a loss or a gradient is not finite, the likeliest first.

    Settings are taken in the order of how many times they are beyond what is usual, if they are so
    several times. The learning rate is always among them, but for a run that has made no update:
    that cannot be to blame.

    Args:
        config: settings.
        step: the step, counted from 1.
        updates: how many were made so far.
    """
    found = list(_beyond_the_usual(config, step - 1))
    found = [(times, words) for times, words in found if times >= _SEVERAL]
    if updates:
        lr, usual = peak_lr(config), _USUAL_LR[config.optimizer.name]
        found.append((lr / usual, f"lower optimizer.lr ({config.optimizer.lr:g})"))
    if not found:
        what = "weights of model.init_from" if config.model.init_from else "images of these pairs"
        return [f"look at the {what} (no update was made yet)"]
    return [words for _, words in sorted(found, key=lambda each: each[0], reverse=True)]


def _beyond_the_usual(config: Config, update: int) -> Iterator[tuple[float, str]]:
    """Settings that the gradient grows with in ``update``: how many times beyond their default."""
    head, loss = config.head, config.loss
    usual = type(config)()
    if head.kind == "cosine":
        yield head.scale / usual.head.scale, f"lower head.scale ({head.scale:g})"
    if loss.similarity == "none" or config.train.images == "first":
        return
    weight, temperature = weight_at(loss, update), temperature_at(loss, update)
    yield weight / weight_at(usual.loss, 0), f"lower loss.weight ({weight:g})"
    if loss.scale_by_t2:  # which leaves the gradient as it is, but for what T^2 rounds away
        yield temperature * _ROUNDING, f"lower loss.temperature ({temperature:g})"
    elif loss.similarity != "mmd":  # which is bounded
        times = temperature_at(usual.loss, 0) / temperature
        yield times, f"raise loss.temperature ({temperature:g}), or set loss.scale_by_t2 = true"


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
