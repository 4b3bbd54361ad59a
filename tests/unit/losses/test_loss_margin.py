"""Margins in plain torch against the arccos formula in float64, and which settings choose them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config.tree import HeadConfig, LossConfig
from distill.heads import CosineHead
from distill.losses import PairLossSpec, margined_logits, pair_loss
from distill.losses.margin import margined


def naive(cosines, angle, cosine):
    """The papers' formula as they write it, with the same continuation beyond pi - m."""
    theta = torch.arccos(cosines)
    inside = torch.cos(theta + angle)
    beyond = cosines - (1 - math.cos(angle))
    return torch.where(theta <= math.pi - angle, inside, beyond) - cosine


@pytest.mark.parametrize(("angle", "cosine"), [(0.5, 0.0), (0.0, 0.35), (0.3, 0.2), (1.2, 0.0)])
def test_margin_and_gradient_equal_the_arccos_formula(angle, cosine):
    cosines = torch.linspace(-0.9999, 0.9999, 401, dtype=torch.float64, requires_grad=True)
    ours, theirs = margined(cosines, angle, cosine), naive(cosines, angle, cosine)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    (mine,) = torch.autograd.grad(ours.sum(), cosines)
    (truth,) = torch.autograd.grad(theirs.sum(), cosines)
    torch.testing.assert_close(mine, truth, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("margin", [(0.5, 0.0), (0.0, 0.35), (0.3, 0.2)])
def test_gradcheck(margin):
    cosines = torch.tensor([-0.99, -0.7, -0.2, 0.0, 0.4, 0.95], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: margined(c, *margin), cosines.requires_grad_())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(0.0, 1.5), st.floats(-1, 1), st.floats(-1, 1))
def test_monotone_in_the_cosine(angle, one, other):
    pair = torch.tensor([min(one, other), max(one, other)], dtype=torch.float64)
    low, high = margined(pair, angle, 0.0)
    assert low <= high + 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000001, -1.0000001])
def test_no_blow_up_at_the_ends(dtype, cosine):
    value = torch.tensor([cosine], dtype=dtype, requires_grad=True)
    result = margined(value, 0.5, 0.0)
    result.sum().backward()
    assert result.isfinite().all() and value.grad.isfinite().all()
    expected = math.cos(0.5) if cosine > 0 else -1 - (1 - math.cos(0.5))
    assert result.item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("implementation", ["reference", "auto"])
def test_embedding_on_its_class_weight_has_a_finite_gradient(implementation):
    """The product of an unbounded slope and a vanishing one, through the whole head."""
    head = CosineHead(4, 3, 64.0)
    embeddings = head.weight.detach()[[1, 1, 2]].clone() * 7
    embeddings[2] *= -1
    embeddings.requires_grad_()
    spec = PairLossSpec(logit_scale=64.0, margin_angle_rad=0.5)
    scores = head(embeddings)
    loss = pair_loss(
        scores,
        scores * 0.9,
        torch.tensor([1, 1, 2]),
        temperature=2.0,
        weight=1.0,
        spec=spec,
        implementation=implementation,
    )
    loss.total.backward()
    assert embeddings.grad.isfinite().all() and head.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "angle", "cosine"),
    [("none", 0.0, 0.0), ("arcface", 0.2, 0.0), ("cosface", 0.0, 0.3), ("combined", 0.2, 0.3)],
)
def test_settings_choose_the_margin(kind, angle, cosine):
    head = HeadConfig(margin=kind, arc_margin_rad=0.2, cos_margin=0.3, scale=12.0)
    spec = PairLossSpec.from_config(LossConfig(), head)
    assert (spec.margin_angle_rad, spec.margin_cosine, spec.logit_scale) == (angle, cosine, 12.0)
    linear = PairLossSpec.from_config(LossConfig(), HeadConfig(kind="linear", scale=12.0))
    assert linear.logit_scale == 1.0 and not linear.has_margin


def test_margined_logits_move_the_own_class_alone():
    cosines = torch.rand(4, 6, dtype=torch.float64) * 2 - 1
    labels = torch.tensor([0, 5, 2, -1])
    spec = PairLossSpec(logit_scale=30.0, margin_angle_rad=0.4, margin_cosine=0.1)
    expected = 30 * cosines
    for row, label in enumerate(labels.clamp(min=0).tolist()):
        expected[row, label] = 30 * naive(cosines[row, label], 0.4, 0.1)
    torch.testing.assert_close(margined_logits(cosines, labels, spec), expected)
