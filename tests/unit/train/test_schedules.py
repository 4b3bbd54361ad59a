"""Schedules against closed forms, torch's own schedulers and their own boundaries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config import Config, LossConfig, PositiveRamp, Ramp
from distill.schedules import learning_rate, peak_lr, temperature_at, value_at, weight_at


def settings_of(batch_pairs: int = 128, **fields: object) -> Config:
    train = {"global_batch_pairs": batch_pairs}
    return Config.model_validate({"optimizer": {"lr": 0.4, **fields}, "train": train})


def torch_rates(scheduler: type, steps: int, **options: float) -> list[float]:
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    schedule = scheduler(sgd, **options)
    rates = []
    for _ in range(steps):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    return rates


def test_polynomial_is_torchs() -> None:
    config = settings_of(schedule="polynomial", power=2.0)
    ours = [learning_rate(config, step, 50) for step in range(50)]
    theirs = torch_rates(torch.optim.lr_scheduler.PolynomialLR, 50, total_iters=50, power=2.0)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_cosine_with_a_floor_is_torchs() -> None:
    config = settings_of(schedule="cosine", final_lr_fraction=0.1)
    ours = [learning_rate(config, step, 40) for step in range(40)]
    theirs = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 40, T_max=40, eta_min=0.04)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_warm_up_is_a_line_that_ends_at_the_peak() -> None:
    config = settings_of(schedule="constant", warmup_steps=4)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 7)


def test_decay_starts_from_the_peak_after_the_warm_up() -> None:
    config = settings_of(schedule="cosine", warmup_steps=5)
    assert learning_rate(config, 5, 25) == 0.4
    assert learning_rate(config, 15, 25) == pytest.approx(0.2)
    expected = 0.2 * (1 + math.cos(math.pi * 19 / 20))
    assert learning_rate(config, 24, 25) == pytest.approx(expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    schedule=st.sampled_from(["polynomial", "cosine", "constant"]),
    warmup=st.integers(0, 30),
    total=st.integers(1, 40),
    step=st.integers(0, 60),
    floor=st.floats(0, 1),
)
def test_rate_is_positive_and_never_above_the_peak(
    schedule: str, warmup: int, total: int, step: int, floor: float
) -> None:
    config = settings_of(schedule=schedule, warmup_steps=warmup, final_lr_fraction=floor)
    rate = learning_rate(config, step, total)
    assert 0.0 <= rate <= 0.4 * (1 + 1e-12)
    if step < total:
        assert rate > 0.0, "no update may be spent at zero"


def test_the_rate_is_taken_as_it_is_unless_a_batch_is_named() -> None:
    assert peak_lr(settings_of(64)) == peak_lr(settings_of(4096, lr_scaling="sqrt")) == 0.4


def test_linear_scaling_is_that_of_goyal_et_al() -> None:
    """Their setting: 0.1 for 256 images, so 3.2 for 8192, after a warm-up that ends there."""
    fields = {"lr": 0.1, "lr_batch_pairs": 256, "warmup_steps": 4, "schedule": "constant"}
    config = settings_of(8192, **fields)
    assert peak_lr(config) == pytest.approx(3.2)
    rates = [learning_rate(config, step, 10) for step in range(6)]
    assert rates == pytest.approx([0.8, 1.6, 2.4, 3.2, 3.2, 3.2])


def test_square_root_scaling_keeps_the_spread_of_a_step() -> None:
    """A step of lr times a mean over B has a spread of lr / sqrt(B), whatever B is."""
    spreads = [
        peak_lr(settings_of(batch, lr_batch_pairs=100, lr_scaling="sqrt")) / math.sqrt(batch)
        for batch in (25, 100, 900)
    ]
    assert spreads == pytest.approx([0.04, 0.04, 0.04])


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.sampled_from(["linear", "sqrt"]))
def test_scaling_there_and_back_is_the_same_rate(one: int, other: int, rule: str) -> None:
    there = peak_lr(settings_of(other, lr_batch_pairs=one, lr_scaling=rule))
    back = peak_lr(settings_of(one, lr=there, lr_batch_pairs=other, lr_scaling=rule))
    assert back == pytest.approx(0.4)


def test_ramp() -> None:
    ramp = Ramp(start=1.0, end=3.0, over_steps=4)
    assert [value_at(ramp, step) for step in range(7)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]
    assert value_at(2.5, 1000) == 2.5


def test_loss_schedules() -> None:
    down = PositiveRamp(start=4.0, end=2.0, over_steps=2)
    config = LossConfig(temperature=down, weight=Ramp(start=0.0, end=1.0, over_steps=10))
    assert [temperature_at(config, step) for step in range(3)] == [4.0, 3.0, 2.0]
    assert weight_at(config, 5) == 0.5
