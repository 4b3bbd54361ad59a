"""A margin whose slope is left out, as arcface_torch does: by its formula, and by brute force."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distill.config.tree import HeadConfig
from distill.losses import PairLossSpec, linear_cross_entropy, pair_loss
from distill.objective.margins import constant_slope, cosines_with, margins_at, own_scores

SCALE = 64.0
ARCFACE = HeadConfig(margin="arcface", arc_margin_rad=0.5, margin_slope="one")


def theirs(embeddings, weight, labels, angle_rad):
    """Its step: cosines, the angle of the own class moved without gradients, times the scale."""
    cosines = F.normalize(embeddings) @ F.normalize(weight).T
    with torch.no_grad():
        angles = torch.arccos(cosines)
        angles[torch.arange(len(labels)), labels] += angle_rad
        moved = torch.cos(angles) - cosines
    return F.cross_entropy(SCALE * (cosines + moved), labels)


@pytest.mark.parametrize("implementation", ["reference", "native"])
def test_loss_and_gradients_are_those_of_its_formula(implementation):
    torch.manual_seed(0)
    embeddings = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    expected = theirs(embeddings, weight, labels, 0.5)
    margins = margins_at(ARCFACE, cosines_with(embeddings, weight, labels))
    found = linear_cross_entropy(
        embeddings, weight, labels, head="cosine", spec=PairLossSpec(logit_scale=SCALE),
        margins=margins, implementation=implementation,
    ).total  # fmt: skip
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    wanted = torch.autograd.grad(expected, (embeddings, weight))
    for one, true in zip(torch.autograd.grad(found, (embeddings, weight)), wanted, strict=True):
        assert torch.allclose(one, true, rtol=1e-7, atol=1e-10)


def test_the_gradient_of_a_pair_is_softmax_less_one_hot():
    """And its loss is that of the margin whose slope is exact."""
    torch.manual_seed(1)
    scores = torch.empty(2, 4, 7, dtype=torch.float64).uniform_(-0.9, 0.9).requires_grad_()
    labels = torch.tensor([6, 0, 3, 3])
    head = HeadConfig(margin="combined", arc_margin_rad=0.4, cos_margin=0.2, margin_slope="one")
    margins = margins_at(head, own_scores(scores.flatten(0, 1), labels.repeat(2)))
    exact = PairLossSpec(logit_scale=8.0, margin_angle_rad=0.4, margin_cosine=0.2)
    common = {"temperature": 3.0, "weight": 0.0}
    loss = pair_loss(*scores, labels, spec=PairLossSpec(logit_scale=8.0), margins=margins, **common)
    with_slope = pair_loss(*scores, labels, spec=exact, **common)
    assert loss.total.item() == pytest.approx(with_slope.total.item(), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss.total, scores)
    hot = F.one_hot(labels, 7)
    own = (scores.detach() * hot).sum(2)
    angle = torch.arccos(own) + 0.4
    psi = torch.where(angle <= math.pi, angle.cos(), own - 1 + math.cos(0.4)) - 0.2
    moved = torch.where(hot.bool(), psi[..., None], scores.detach())
    assert torch.allclose(gradient, 8.0 * (torch.softmax(8.0 * moved, 2) - hot) / 4, atol=1e-9)
    (other,) = torch.autograd.grad(with_slope.total, scores)
    assert not torch.allclose(gradient, other, atol=1e-2)


def test_own_cosines_are_those_of_brute_force():
    torch.manual_seed(2)
    embeddings, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([1, -1, 0, 3, 3])
    weight = torch.randn(4, 2, 3, dtype=torch.float64)
    for sub_centres in (weight, weight[:, 0]):
        for row, label, found in zip(
            embeddings, labels, cosines_with(embeddings, sub_centres, labels), strict=True
        ):
            centres = sub_centres[max(int(label), 0)].view(-1, 3)
            cosines = [torch.dot(c, row) / c.norm() / row.norm() for c in centres]
            assert float(found) == pytest.approx(max(map(float, cosines)))


@pytest.mark.parametrize("margin", ["none", "cosface", "adaface"])
def test_margins_without_a_slope_of_their_own_stay_as_they_are(margin):
    assert not constant_slope(HeadConfig(margin=margin, margin_slope="one"))
    assert not constant_slope(HeadConfig(margin="arcface"))
    assert constant_slope(ARCFACE)
