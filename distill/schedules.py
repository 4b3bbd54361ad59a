"""Learning rate, temperature and similarity weight as pure functions of the step.

A step is counted in optimizer updates, from 0; the value at step k is the one update k uses. Being
functions of the step alone, schedules need no state in a checkpoint and resume exactly.
"""

from __future__ import annotations

import math

from distill.config.tree import LossConfig, OptimizerConfig, Ramp


def value_at(value: float | Ramp, step: int) -> float:
    """A constant, or the place of a straight ramp at ``step`` (flat from ``over_steps`` on)."""
    if not isinstance(value, Ramp):
        return float(value)
    fraction = min(1.0, step / value.over_steps)
    return value.start + (value.end - value.start) * fraction


def temperature_at(loss: LossConfig, step: int) -> float:
    """Softening temperature T of update ``step`` (no unit)."""
    return value_at(loss.temperature, step)


def weight_at(loss: LossConfig, step: int) -> float:
    """Weight of the similarity term in update ``step`` (no unit)."""
    return value_at(loss.weight, step)


def learning_rate(optimizer: OptimizerConfig, step: int, total_steps: int) -> float:
    """Learning rate of update ``step`` out of ``total_steps``.

    Warm-up rises linearly and reaches the peak in its last update, so that no update is spent at
    zero; decay starts from the peak and would reach ``final_lr_fraction`` one update after the
    last, for the same reason.

    Returns:
        The learning rate, in [0, ``optimizer.lr``].
    """
    if step < optimizer.warmup_steps:
        return optimizer.lr * (step + 1) / optimizer.warmup_steps
    span = max(1, total_steps - optimizer.warmup_steps)
    progress = min(1.0, (step - optimizer.warmup_steps) / span)
    floor = optimizer.final_lr_fraction
    return optimizer.lr * (floor + (1.0 - floor) * _remaining(optimizer, progress))


def _remaining(optimizer: OptimizerConfig, progress: float) -> float:
    """Part of the peak that is left at ``progress`` in [0, 1] of the decay, from 1 to 0."""
    match optimizer.schedule:
        case "polynomial":
            return float((1.0 - progress) ** optimizer.power)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "constant":
            return 1.0
