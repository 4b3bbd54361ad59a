"""Learning rate, temperature and similarity weight as pure functions of the step.

A step is counted in optimizer updates, from 0; the value at step k is the one update k uses. Being
functions of the step alone, schedules need no state in a checkpoint and resume exactly.
"""

from __future__ import annotations

import math

from distill.config.tree import Config, LossConfig, OptimizerConfig, Ramp


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


def peak_lr(config: Config) -> float:
    """Learning rate at the end of warm-up: ``optimizer.lr`` scaled to the global batch.

    The rule is a function of the settings alone, so a run that goes on with another
    ``train.global_batch_pairs`` goes on with the rate of its new batch, and one that goes on with
    another number of ranks keeps its rate. Linear: Goyal et al., "Accurate, Large Minibatch SGD:
    Training ImageNet in 1 Hour", 2017, section 2.1. Square root: Krizhevsky, "One weird trick for
    parallelizing convolutional neural networks", 2014, section 5.
    """
    optimizer = config.optimizer
    if not optimizer.lr_batch_pairs:
        return optimizer.lr
    times = config.train.global_batch_pairs / optimizer.lr_batch_pairs
    return optimizer.lr * (times if optimizer.lr_scaling == "linear" else math.sqrt(times))


def learning_rate(config: Config, step: int, total_steps: int) -> float:
    """Learning rate of update ``step`` out of ``total_steps``.

    Warm-up rises linearly and reaches the peak in its last update, so that no update is spent at
    zero; decay starts from the peak and would reach ``final_lr_fraction`` one update after the
    last, for the same reason.

    Returns:
        The learning rate, in [0, `peak_lr`].
    """
    optimizer, peak = config.optimizer, peak_lr(config)
    if step < optimizer.warmup_steps:
        return peak * (step + 1) / optimizer.warmup_steps
    span = max(1, total_steps - optimizer.warmup_steps)
    progress = min(1.0, (step - optimizer.warmup_steps) / span)
    floor = optimizer.final_lr_fraction
    return peak * (floor + (1.0 - floor) * _remaining(optimizer, progress))


def _remaining(optimizer: OptimizerConfig, progress: float) -> float:
    """Part of the peak that is left at ``progress`` in [0, 1] of the decay, from 1 to 0."""
    match optimizer.schedule:
        case "polynomial":
            return float((1.0 - progress) ** optimizer.power)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "constant":
            return 1.0
