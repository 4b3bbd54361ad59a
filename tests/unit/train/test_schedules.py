"""Schedules against closed forms, torch's own schedulers and their own boundaries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config import LossConfig, OptimizerConfig, PositiveRamp, Ramp
from distill.schedules import learning_rate, temperature_at, value_at, weight_at


def optimizer(**fields: object) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"lr": 0.4, **fields})


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
    config = optimizer(schedule="polynomial", power=2.0)
    ours = [learning_rate(config, step, 50) for step in range(50)]
    theirs = torch_rates(torch.optim.lr_scheduler.PolynomialLR, 50, total_iters=50, power=2.0)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_cosine_with_a_floor_is_torchs() -> None:
    config = optimizer(schedule="cosine", final_lr_fraction=0.1)
    ours = [learning_rate(config, step, 40) for step in range(40)]
    theirs = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 40, T_max=40, eta_min=0.04)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_warm_up_is_a_line_that_ends_at_the_peak() -> None:
    config = optimizer(schedule="constant", warmup_steps=4)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 7)


def test_decay_starts_from_the_peak_after_the_warm_up() -> None:
    config = optimizer(schedule="cosine", warmup_steps=5)
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
    config = optimizer(schedule=schedule, warmup_steps=warmup, final_lr_fraction=floor)
    rate = learning_rate(config, step, total)
    assert 0.0 <= rate <= 0.4 * (1 + 1e-12)
    if step < total:
        assert rate > 0.0, "no update may be spent at zero"


def test_ramp() -> None:
    ramp = Ramp(start=1.0, end=3.0, over_steps=4)
    assert [value_at(ramp, step) for step in range(7)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]
    assert value_at(2.5, 1000) == 2.5


def test_loss_schedules() -> None:
    down = PositiveRamp(start=4.0, end=2.0, over_steps=2)
    config = LossConfig(temperature=down, weight=Ramp(start=0.0, end=1.0, over_steps=10))
    assert [temperature_at(config, step) for step in range(3)] == [4.0, 3.0, 2.0]
    assert weight_at(config, 5) == 0.5
