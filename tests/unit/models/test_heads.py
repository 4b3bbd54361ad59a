"""Heads and margins against the arccos formula in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config.tree import HeadConfig
from distill.errors import UserError
from distill.heads import CosineHead, LinearHead, Margin, build_head


def naive(cosines, angle, cosine):
    """The papers' formula as they write it, with the same continuation beyond pi - m."""
    theta = torch.arccos(cosines)
    inside = torch.cos(theta + angle)
    beyond = cosines - (1 - math.cos(angle))
    return torch.where(theta <= math.pi - angle, inside, beyond) - cosine


@pytest.mark.parametrize(("angle", "cosine"), [(0.5, 0.0), (0.0, 0.35), (0.3, 0.2), (1.2, 0.0)])
def test_margin_and_gradient_equal_the_arccos_formula(angle, cosine):
    cosines = torch.linspace(-0.9999, 0.9999, 401, dtype=torch.float64, requires_grad=True)
    ours, theirs = Margin(angle, cosine)(cosines), naive(cosines, angle, cosine)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    (mine,) = torch.autograd.grad(ours.sum(), cosines)
    (truth,) = torch.autograd.grad(theirs.sum(), cosines)
    torch.testing.assert_close(mine, truth, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("margin", [Margin(0.5), Margin(0.0, 0.35), Margin(0.3, 0.2)])
def test_gradcheck(margin):
    cosines = torch.tensor([-0.99, -0.7, -0.2, 0.0, 0.4, 0.95], dtype=torch.float64)
    assert torch.autograd.gradcheck(margin, cosines.requires_grad_())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(0.0, 1.5), st.floats(-1, 1), st.floats(-1, 1))
def test_monotone_in_the_cosine(angle, one, other):
    low, high = Margin(angle)(torch.tensor([min(one, other), max(one, other)], dtype=torch.float64))
    assert low <= high + 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000001, -1.0000001])
def test_no_blow_up_at_the_ends(dtype, cosine):
    value = torch.tensor([cosine], dtype=dtype, requires_grad=True)
    result = Margin(0.5)(value)
    result.sum().backward()
    assert result.isfinite().all() and value.grad.isfinite().all()
    expected = math.cos(0.5) if cosine > 0 else -1 - (1 - math.cos(0.5))
    assert result.item() == pytest.approx(expected, abs=1e-3)


def test_embedding_on_its_class_weight_has_a_finite_gradient():
    """The product of an unbounded slope and a vanishing one, through the whole head."""
    head = CosineHead(4, 3, 64.0, Margin(0.5))
    embeddings = head.weight.detach()[[1, 1, 2]].clone() * 7
    embeddings[2] *= -1
    embeddings.requires_grad_()
    _, targets = head(embeddings, torch.tensor([1, 1, 2]))
    targets.sum().backward()
    assert embeddings.grad.isfinite().all() and head.weight.grad.isfinite().all()


def test_cosine_head_against_the_plain_formula():
    head = CosineHead(5, 7, 30.0, Margin(0.4, 0.1)).double()
    embeddings = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 6, 3, -1, 2, 2])
    logits, targets = head(embeddings, labels)
    weight = head.weight
    cosines = torch.stack(
        [F.cosine_similarity(embeddings, w[None].expand(6, -1)) for w in weight], dim=1
    )
    torch.testing.assert_close(logits, 30 * cosines)
    valid = labels >= 0
    own = cosines[valid, labels[valid]]
    torch.testing.assert_close(targets[valid], 30 * naive(own, 0.4, 0.1))
    assert targets.isfinite().all()
    assert torch.autograd.gradcheck(lambda x: head(x, labels), embeddings)


def test_no_margin_no_targets():
    embeddings, labels = torch.randn(2, 5), torch.tensor([0, 1])
    assert CosineHead(5, 3, 10.0)(embeddings, labels)[1] is None
    assert CosineHead(5, 3, 10.0, Margin(0.5))(embeddings)[1] is None
    assert LinearHead(5, 3)(embeddings, labels)[1] is None


def test_logits_are_wide_and_margin_free():
    narrow = CosineHead(16, 9, 64.0, Margin(0.5)).bfloat16()
    embeddings, labels = torch.randn(4, 16).bfloat16(), torch.arange(4)
    logits, targets = narrow(embeddings, labels)
    assert logits.dtype == targets.dtype == torch.float32
    assert torch.equal(logits, narrow(embeddings)[0])
    assert (targets <= logits.gather(1, labels[:, None])[:, 0]).all()
    assert LinearHead(16, 9).bfloat16()(embeddings)[0].dtype == torch.float32


def test_cosines_stay_float32_under_autocast():
    head = CosineHead(64, 50, 64.0, Margin(0.5))
    embeddings, labels = torch.randn(8, 64), torch.arange(8)
    with torch.autocast("cpu", torch.bfloat16):
        logits, targets = head(embeddings, labels)
    plain_logits, plain_targets = head(embeddings, labels)
    assert torch.equal(logits, plain_logits) and torch.equal(targets, plain_targets)


@pytest.mark.parametrize(
    ("kind", "angle", "cosine"),
    [("arcface", 0.2, 0.0), ("cosface", 0.0, 0.3), ("combined", 0.2, 0.3)],
)
def test_settings_choose_the_margin(kind, angle, cosine):
    config = HeadConfig(margin=kind, arc_margin_rad=0.2, cos_margin=0.3, scale=12.0)
    head = build_head(config, 4, 3)
    assert head.margin == Margin(angle, cosine) and head.scale == 12.0
    assert build_head(HeadConfig(margin="none"), 4, 3).margin is None


def test_linear_head_refuses_a_margin():
    with pytest.raises(UserError, match=r"head\.margin = 'arcface'"):
        build_head(HeadConfig(kind="linear", margin="arcface"), 4, 3)
    assert isinstance(build_head(HeadConfig(kind="linear"), 4, 3), LinearHead)
