"""The oracle itself, against scipy, numpy, torch.nn.functional and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F

from distill.losses import PairLossSpec, pair_loss, reference
from distill.losses.rbf import batch_mmd

T = 3.0


def logits(B: int = 4, C: int = 9, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(B * C)
    z = scale * torch.randn(2, B, C, generator=generator, dtype=torch.float64)
    return z[0], z[1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_torch_and_of_numpy(smoothing: float) -> None:
    z, _ = logits()
    y = torch.tensor([0, 8, 3, 3])
    ours = reference.cross_entropy(z, y, smoothing)
    torch.testing.assert_close(
        ours, F.cross_entropy(z, y, reduction="none", label_smoothing=smoothing)
    )
    log_p = scipy.special.log_softmax(z.numpy(), axis=1)
    target = np.full(z.shape, smoothing / 9)
    target[np.arange(4), y.numpy()] += 1 - smoothing
    np.testing.assert_allclose(ours.numpy(), -(target * log_p).sum(1), rtol=1e-12)


@pytest.mark.parametrize("gap", [30.0, 90.0])
def test_cross_entropy_keeps_what_rounding_would_lose(gap: float) -> None:
    z = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    loss = reference.cross_entropy(z, torch.tensor([0]))
    loss.backward()
    expected = 2.0 * math.exp(-gap)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert z.grad[0, 0].item() == pytest.approx(-expected, rel=1e-5)
    assert F.cross_entropy(z, torch.tensor([0])).item() == 0.0  # what is being avoided


def test_a_margin_moves_the_target_in_the_cross_entropy_alone() -> None:
    x1, x2 = (z.tanh() for z in logits())
    y = torch.tensor([0, 8, 3, -1])
    spec = PairLossSpec(logit_scale=16.0, margin_angle_rad=0.4, margin_cosine=0.1)
    terms = reference.row_terms(x1, x2, y, T, spec)
    for x, ours in ((x1, terms.ce_first), (x2, terms.ce_second)):
        z = 16.0 * x
        for row, label in enumerate(y[:3].tolist()):
            theta = math.acos(x[row, label])
            beyond = math.cos(theta) - (1 - math.cos(0.4))
            psi = math.cos(theta + 0.4) if theta <= math.pi - 0.4 else beyond
            z[row, label] = 16.0 * (psi - 0.1)
        expected = F.cross_entropy(z, y, reduction="none", ignore_index=-1)
        torch.testing.assert_close(ours, expected)
    without = reference.row_terms(16 * x1, 16 * x2, y, T, PairLossSpec())
    torch.testing.assert_close(terms.similarity, without.similarity)
    torch.testing.assert_close(terms.extras, without.extras)


def test_entropy_and_share_of_the_target_are_those_of_scipy() -> None:
    z1, z2 = logits()
    y = torch.tensor([0, 8, -1, 3])
    extras = reference.row_terms(z1, z2, y, T, PairLossSpec()).extras.numpy()
    for side, z in enumerate((z1, z2)):
        p = scipy.special.softmax(z.numpy() / T, axis=1)
        entropies = scipy.special.entr(p).sum(1) * (y >= 0).numpy()
        np.testing.assert_allclose(extras[:, side], entropies, rtol=1e-12)
        shares = p[np.arange(4), y.numpy()] * (y >= 0).numpy()
        np.testing.assert_allclose(extras[:, 2 + side], shares, rtol=1e-12)


def test_kl_is_that_of_torch_and_of_scipy() -> None:
    u, v = logits()
    ours = reference.kl_divergence(u, v)
    theirs = F.kl_div(v.log_softmax(1), u.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(ours, theirs)
    p, q = (scipy.special.softmax(x.numpy(), axis=1) for x in (u, v))
    np.testing.assert_allclose(ours.numpy(), scipy.special.rel_entr(p, q).sum(1), rtol=1e-10)


def test_soft_cross_entropy_is_kl_plus_entropy() -> None:
    u, v = logits()
    p = scipy.special.softmax(u.numpy(), axis=1)
    expected = reference.kl_divergence(u, v).numpy() + scipy.special.entr(p).sum(1)
    np.testing.assert_allclose(reference.soft_cross_entropy(u, v).numpy(), expected, rtol=1e-10)


def test_classes_excluded_on_both_sides_add_nothing() -> None:
    u, v = logits(C=5)
    wide = [torch.cat([x, torch.full((4, 2), -torch.inf, dtype=x.dtype)], 1) for x in (u, v)]
    for function in (reference.kl_divergence, reference.soft_cross_entropy):
        torch.testing.assert_close(function(*wide), function(u, v))


@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd"])
def test_directions(similarity: str) -> None:
    z1, z2 = logits()
    y = torch.zeros(4, dtype=torch.long)

    def value(direction: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        spec = PairLossSpec(similarity=similarity, direction=direction)
        return reference.row_terms(a, b, y, T, spec).similarity

    forward, reverse = value("forward", z1, z2), value("reverse", z1, z2)
    torch.testing.assert_close(reverse, value("forward", z2, z1))
    torch.testing.assert_close(value("symmetric", z1, z2), (forward + reverse) / 2)


def test_total_is_the_row_sum_then_the_mean_over_valid_pairs() -> None:
    z1, z2 = logits(B=5)
    y = torch.tensor([2, -1, 0, 8, -1])
    keep = [0, 2, 3]
    for ce, weight_of_ce in (("sum", 1.0), ("mean", 0.5)):
        loss = pair_loss(
            z1,
            z2,
            y,
            temperature=T,
            weight=0.25,
            spec=PairLossSpec(ce=ce),
            implementation="reference",
        )
        log_p, log_q = (scipy.special.log_softmax(z.numpy() / T, axis=1)[keep] for z in (z1, z2))
        p, q = np.exp(log_p), np.exp(log_q)
        kl = 0.5 * ((p - q) * (log_p - log_q)).sum(1) * T * T
        hard = [-scipy.special.log_softmax(z.numpy(), axis=1)[keep, y[keep]] for z in (z1, z2)]
        rows = weight_of_ce * (hard[0] + hard[1]) + 0.25 * kl
        assert loss.total.item() == pytest.approx(rows.mean(), rel=1e-12)
        assert loss.similarity.item() == pytest.approx(kl.mean(), rel=1e-12)
        assert loss.ce_first.item() == pytest.approx(hard[0].mean(), rel=1e-12)
        top1, top2 = (z.numpy().argmax(1)[keep] for z in (z1, z2))
        assert loss.agreement.item() == pytest.approx((top1 == top2).mean())
        assert loss.correct_second.item() == pytest.approx((top2 == y[keep].numpy()).mean())


@pytest.mark.parametrize("implementation", ["reference", "auto"])
def test_no_valid_pair_gives_zero_loss_and_zero_gradient(implementation: str) -> None:
    z1, z2 = (z.clone().requires_grad_() for z in logits())
    y = torch.full((4,), -1)
    with torch.no_grad():
        z1[0, 0] = torch.nan
    for kernel in ("linear", "rbf"):
        spec = PairLossSpec(similarity="mmd", mmd_kernel=kernel)
        loss = pair_loss(
            z1, z2, y, temperature=T, weight=1.0, spec=spec, implementation=implementation
        )
        loss.total.backward()
        assert all(x.item() == 0.0 for x in loss)
        assert not z1.grad.any()
        assert not z2.grad.any()


@pytest.mark.parametrize("side", ["first", "second"])
@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd"])
def test_stop_gradient_keeps_the_value_and_one_side_s_gradient(side: str, similarity: str) -> None:
    y = torch.zeros(4, dtype=torch.long)
    grads = {}
    for stop in ("none", side):
        z1, z2 = (z.clone().requires_grad_() for z in logits())
        spec = PairLossSpec(similarity=similarity, stop_gradient=stop)
        reference.row_terms(z1, z2, y, T, spec).similarity.sum().backward()
        grads[stop] = (z1.grad, z2.grad)
    stopped, other = (0, 1) if side == "first" else (1, 0)
    assert grads[side][stopped] is None or not grads[side][stopped].any()
    torch.testing.assert_close(grads[side][other], grads["none"][other])


def test_batch_mmd_is_the_brute_force_sum() -> None:
    u, v = logits(B=6)
    p, q = (scipy.special.softmax(x.numpy(), axis=1) for x in (u, v))
    keep = [0, 1, 3, 5]
    valid = torch.tensor([i in keep for i in range(6)])
    pool = np.concatenate([p[keep], q[keep]])
    distance = ((pool[:, None] - pool[None]) ** 2).sum(-1)
    bandwidth = distance[~np.eye(8, dtype=bool)].mean()
    k = np.mean([np.exp(-distance / (m * bandwidth)) for m in (0.25, 0.5, 1, 2, 4)], axis=0)
    expected = k[:4, :4].mean() + k[4:, 4:].mean() - 2 * k[:4, 4:].mean()
    ours = batch_mmd(torch.from_numpy(p), torch.from_numpy(q), valid)
    assert ours.item() == pytest.approx(expected, rel=1e-10)


def test_batch_mmd_of_equal_answers_is_zero_and_finite() -> None:
    p = torch.full((3, 4), 0.25, requires_grad=True)
    value = batch_mmd(p, p.detach(), torch.ones(3, dtype=torch.bool))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert p.grad.isfinite().all()


def test_reference_passes_gradcheck() -> None:
    z1, z2 = (z.clone().requires_grad_() for z in logits(B=3, C=4, scale=1.0))
    y = torch.tensor([0, -1, 3])
    # The bandwidth of the RBF kernels is held constant, so it is no function to differentiate.
    for similarity in ("kl", "ce", "mmd", "none"):
        spec = PairLossSpec(similarity=similarity, direction="forward", label_smoothing=0.1)
        assert torch.autograd.gradcheck(
            lambda a, b, s=spec: reference.row_terms(a, b, y, T, s).parts, (z1, z2)
        )
