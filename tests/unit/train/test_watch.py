"""What is said of steps that went wrong."""

from __future__ import annotations

import math
import random

from distill.watch import LossSpikes, nonfinite_text


def noisy_curve(steps: int) -> list[float]:
    rng = random.Random(0)
    return [8.0 * math.exp(-step / 150) + 0.3 + rng.gauss(0, 0.1) for step in range(steps)]


def test_a_jump_is_a_spike_and_noise_is_none() -> None:
    spikes = LossSpikes()
    curve = noisy_curve(400)
    curve[300] += 10.0
    assert [step for step, loss in enumerate(curve) if spikes.see(loss)] == [300]


def test_a_loss_that_stays_high_is_told_a_few_times() -> None:
    """Not in each step for days; a later jump is one again."""
    spikes = LossSpikes()
    curve = noisy_curve(600)
    for step in range(300, 600):
        curve[step] += 10.0
    curve[500] += 30.0
    assert [step for step, loss in enumerate(curve) if spikes.see(loss)] == [*range(300, 305), 500]


def test_the_start_and_what_is_not_finite_are_no_spikes() -> None:
    spikes = LossSpikes(quiet=5)
    assert not any(spikes.see(loss) for loss in (1.0, 100.0, 1.0, math.nan, math.inf))


def test_the_text_names_step_rank_and_pairs() -> None:
    text = nonfinite_text(12, {1: [7, 9], 0: list(range(10))})
    assert text == (
        "step 12: the loss is not finite on rank 0 (pairs 0, 1, 2, 3, 4, 5, 6, 7 and 2 more)"
        " and rank 1 (pairs 7, 9)"
    )
    assert "gradient" in nonfinite_text(3, {})
