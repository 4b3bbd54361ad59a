"""What is said of steps that went wrong."""

from __future__ import annotations

import math
import random

import pytest
import torch

from distill.config import load_config
from distill.losses import PairLossSpec, pair_loss
from distill.watch import LossSpikes, nonfinite_remedies, nonfinite_text


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
    text = nonfinite_text(12, {1: [7, 9], 0: list(range(10))}, math.nan)
    assert text == (
        "step 12: the loss is not finite on rank 0 (pairs 0, 1, 2, 3, 4, 5, 6, 7 and 2 more)"
        " and rank 1 (pairs 7, 9)"
    )
    assert "gradient" in nonfinite_text(3, {}, 1.0)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("", "optimizer.lr"),
        ("head.scale=1000", "head.scale optimizer.lr"),
        ("head.scale=1000 optimizer.lr=10", "optimizer.lr head.scale"),
        ("head.scale=1000 head.kind=linear", "optimizer.lr"),
        ("loss.weight=50", "loss.weight optimizer.lr"),
        ("loss.weight=50 loss.similarity=none", "optimizer.lr"),
        ("loss.weight=50 train.images=first", "optimizer.lr"),
        ("head.scale=640 loss.weight=50", "loss.weight head.scale optimizer.lr"),
        ("loss.temperature=0.01", "optimizer.lr"),
        ("loss.temperature=0.01 loss.scale_by_t2=false", "loss.temperature optimizer.lr"),
        ("loss.temperature=1e20", "loss.temperature optimizer.lr"),
        ("loss.temperature=100", "optimizer.lr"),
        ("optimizer.lr=0.1 optimizer.name=adamw head.scale=640", "optimizer.lr head.scale"),
    ],
)
def test_what_helps_goes_by_the_settings(words: str, fields: str) -> None:
    """And by whether an update was made, without which no learning rate can be to blame."""
    config, expected = load_config(None, words.split()), fields.split()
    assert [text.split()[1] for text in nonfinite_remedies(config, 2, 1)] == expected
    expected.remove("optimizer.lr")
    found = nonfinite_remedies(config, 2, 0)
    if expected:
        assert [text.split()[1] for text in found] == expected
    else:
        assert found == ["look at the images of these pairs (no update was made yet)"]


def test_weights_that_a_run_begins_with_may_be_to_blame() -> None:
    (found,) = nonfinite_remedies(load_config(None, ["model.init_from=there"]), 1, 0)
    assert found.startswith("look at the weights of model.init_from")


def test_a_ramp_counts_as_far_as_it_has_come() -> None:
    config = load_config(None, ["loss.weight={start=0.0, end=100.0, over_steps=100}"])
    assert nonfinite_remedies(config, 3, 2) == ["lower optimizer.lr (0.1)"]
    assert nonfinite_remedies(config, 51, 9)[0] == "lower loss.weight (50)"


def gradient_norm(*words: str) -> float:
    """Of the loss by the cosines of a network as it is drawn."""
    config = load_config(None, words)
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(6, 9, generator=draw).mul(0.1)
    second = first + torch.randn(6, 9, generator=draw).mul(0.05)
    pair = first.requires_grad_(), second.requires_grad_()
    numbers = {"temperature": config.loss.temperature, "weight": config.loss.weight}
    spec = PairLossSpec.of_run(config)
    loss = pair_loss(*pair, torch.arange(6), **numbers, spec=spec, implementation="reference")
    loss.total.backward()
    return float(first.grad.norm())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["head.scale=1000"], True),
        (["loss.weight=50"], True),
        (["loss.temperature=0.001", "loss.scale_by_t2=false"], True),
        (["loss.temperature=1e20"], True),
        (["loss.temperature=0.001"], False),
        (["loss.temperature=100"], False),
        (["loss.temperature=0.001", "loss.scale_by_t2=false", "loss.similarity=mmd"], False),
    ],
)
def test_what_is_named_is_what_gradients_grow_with(words: list[str], named: bool) -> None:
    many_times = not gradient_norm(*words) <= 4.0 * gradient_norm()
    assert many_times == named
    (found,) = nonfinite_remedies(load_config(None, words), 1, 0)
    assert (found.split()[1] == words[0].partition("=")[0]) == named
