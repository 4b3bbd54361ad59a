"""The cross-entropy of single images by chunks of classes, against float64 over whole scores."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.losses import (
    ClassShards,
    PairLossSpec,
    RowMargins,
    fused,
    linear_cross_entropy,
    linear_native,
    linear_plain,
)
from distill.losses.linear_rows import two_at_a_time
from distill.losses.linear_single import Singles
from distill.losses.linear_state import Choices, State, empty_state
from distill.losses.live_memory import LiveMemory

sys.path.insert(0, str(Path(__file__).parent))
from linear_cases import ARC, make_inputs
from row_cases import by_chunks, by_torch, leaves_of, loss_of, margins_of

needs_native = pytest.mark.skipif(
    "cpu" not in fused.native_devices(), reason="the native extension is not built"
)
IMPLEMENTATIONS = ["reference", pytest.param("native", marks=needs_native)]
PRIMITIVES = [linear_plain, pytest.param(linear_native, marks=needs_native)]
COSINE = {
    "plain": {"logit_scale": 16.0},
    "arcface": {"logit_scale": 16.0, "margin_angle_rad": 0.5},
    "cosface": {"logit_scale": 64.0, "margin_cosine": 0.3},
    "combined": ARC,
}
CASES = [("linear", {}), *(("cosine", words) for words in COSINE.values())]


def agree(ours: list[torch.Tensor], true: list[torch.Tensor], rtol: float, atol: float) -> None:
    """Mean loss and accuracy, and every gradient."""
    _, weights, right, mean, *gradients = true
    expected = [mean, mean, (weights * right).sum() / weights.sum(), *gradients]
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("N", [1, 2, 5, 8])
@pytest.mark.parametrize(("head", "words"), CASES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_float64_is_torch(N, head, words, smoothing, implementation) -> None:
    inputs = make_inputs(N, 7, 23, head)
    spec = PairLossSpec(**words, label_smoothing=smoothing)
    ours = by_chunks(inputs, spec, head, implementation)
    agree(ours, by_torch(inputs, spec, head), 1e-11, 1e-12)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_other_reductions(reduction, implementation) -> None:
    inputs, spec = make_inputs(7, 4, 12, "cosine"), PairLossSpec(logit_scale=8.0)
    ce, weights, right, mean, d_features, d_weight = by_torch(inputs, spec, "cosine")
    total, told, correct, *gradients = by_chunks(
        inputs, spec, "cosine", implementation, reduction=reduction
    )
    expected = weights * ce if reduction == "none" else (weights * ce).sum()
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-13)
    if reduction == "none":
        torch.testing.assert_close(told, ce, rtol=1e-12, atol=1e-13)
        assert torch.equal(correct, right.double())
    else:
        torch.testing.assert_close(told, mean, rtol=1e-12, atol=0.0)
    for a, b in zip(gradients, (d_features, d_weight), strict=True):
        torch.testing.assert_close(a, b * weights.sum(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("N", [4, 7])
def test_margins_of_each_image(N, implementation) -> None:
    inputs, margins = make_inputs(N, 6, 19, "cosine"), margins_of(N)
    spec = PairLossSpec(logit_scale=32.0, label_smoothing=0.05)
    ours = by_chunks(inputs, spec, "cosine", implementation, margins=margins)
    agree(ours, by_torch(inputs, spec, "cosine", margins), 1e-10, 1e-11)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("head", "words"), CASES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_float32(head, words, scale, implementation) -> None:
    inputs = make_inputs(7, 16, 301, head, scale=scale).to(torch.float32)
    spec = PairLossSpec(**words)
    true = by_torch(inputs.to(torch.float64), spec, head)
    ours = by_chunks(inputs, spec, head, implementation, chunk_classes=64)
    agree(ours[:3], true[:4], 2e-6, 2e-6)
    for a, b in zip(ours[3:], true[4:], strict=True):
        assert (a.double() - b).abs().max() <= 2e-5 * (1.0 + b.abs().max())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sixteen_bits(dtype, smoothing, implementation) -> None:
    for head, weight_type in itertools.product(("linear", "cosine"), (dtype, torch.float32)):
        inputs = make_inputs(5, 32, 200, head, scale=0.3, weighted=False).to(dtype)
        object.__setattr__(inputs, "weight", inputs.weight.to(weight_type))
        spec = PairLossSpec(**(ARC if head == "cosine" else {}), label_smoothing=smoothing)
        true = by_torch(inputs.to(torch.float64), spec, head)
        ours = by_chunks(inputs, spec, head, implementation, chunk_classes=64)
        assert ours[0].dtype == torch.float32
        assert [x.dtype for x in ours[3:5]] == [dtype, weight_type]
        eps = torch.finfo(dtype).eps
        size = 1.0 + float(true[3])
        assert abs(float(ours[0]) - float(true[3])) <= (2e-6 if head == "cosine" else eps) * size
        for a, t in zip(ours[3:], true[4:], strict=True):
            assert (a.double() - t).abs().max() <= 2 * eps * t.abs().max()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_far_above_the_others_the_loss_is_not_0(head, implementation) -> None:
    """At a gap of 30, exp(-30) of a loss and of a gradient, in float32."""
    features, weight = torch.eye(3)[:1], torch.eye(3)
    spec = PairLossSpec(logit_scale=30.0)
    if head == "linear":
        features, spec = 30.0 * features, PairLossSpec()
    features.requires_grad_()
    loss = linear_cross_entropy(
        features, weight, torch.tensor([0]), spec=spec, head=head, implementation=implementation
    )
    expected = 2.0 * torch.tensor(-30.0).exp()
    torch.testing.assert_close(loss.total.detach(), expected, rtol=1e-5, atol=0.0)
    if head == "linear":
        (gradient,) = torch.autograd.grad(loss.total, features)
        torch.testing.assert_close(gradient[0, 0], -expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_nothing_of_an_ignored_image_counts_and_nan_poisons_its_own(head, implementation) -> None:
    inputs, spec = make_inputs(6, 4, 9, head, weighted=False), PairLossSpec()
    without = by_chunks(inputs, spec, head, implementation)
    inputs.first[1] = torch.nan
    same = by_chunks(inputs, spec, head, implementation)
    assert all(torch.equal(a, b) for a, b in zip(same, without, strict=True))
    assert not same[3][1].any()
    inputs.first[2] = torch.nan
    _, ce, correct, *_ = by_chunks(inputs, spec, head, implementation, reduction="none")
    assert ce.isnan().tolist() == [False, False, True, False, False, False]
    assert correct[2] == 0.0
    inputs.labels.fill_(-1)
    for found in by_chunks(inputs, spec, head, implementation):
        assert not found.any()


@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradcheck_and_no_second_derivative(head, implementation) -> None:
    inputs = make_inputs(3, 4, 7, head)
    spec = PairLossSpec(**(ARC if head == "cosine" else {}), label_smoothing=0.1)

    def total(*leaves: torch.Tensor) -> torch.Tensor:
        return loss_of(list(leaves), inputs, spec, head, implementation).total

    leaves = tuple(leaves_of(inputs))
    assert torch.autograd.gradcheck(total, leaves)
    with pytest.raises(RuntimeError, match="second derivative is not implemented"):
        torch.autograd.gradgradcheck(total, leaves)


@needs_native
def test_similarity_settings_do_not_matter_and_autocast_changes_nothing() -> None:
    inputs = make_inputs(5, 8, 30, "linear").to(torch.float32)
    plain = by_chunks(inputs, PairLossSpec(similarity="none"), "linear", "native")
    others = (
        PairLossSpec(similarity="mmd", mmd_kernel="rbf", ce="mean", scale_by_t2=False),
        PairLossSpec(topk_classes=50, direction="forward", stop_gradient="first"),
    )
    for spec in others:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same = by_chunks(inputs, spec, "linear", "native")
        assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))


@pytest.mark.parametrize("budget", [0, 6 * 5 * 8, 2**30])
def test_any_budget_and_any_chunk(budget) -> None:
    inputs, spec = make_inputs(5, 6, 23, "cosine"), PairLossSpec(**ARC, label_smoothing=0.1)
    all_kept = by_chunks(inputs, spec, "cosine", memory_budget_bytes=2**30)
    ours = by_chunks(inputs, spec, "cosine", memory_budget_bytes=budget)
    assert all(torch.equal(a, b) for a, b in zip(ours, all_kept, strict=True))
    for chunk in (1, 7, 23, 40):
        for a, b in zip(
            by_chunks(inputs, spec, "cosine", chunk_classes=chunk), all_kept, strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def peak_beyond_weight_gradient(C: int, head: str, implementation: str, budget: int) -> int:
    inputs = make_inputs(8, 8, C, head).to(torch.float32)
    leaves, spec = leaves_of(inputs), PairLossSpec(label_smoothing=0.1)
    options = {"chunk_classes": 64, "memory_budget_bytes": budget}
    with LiveMemory() as memory:
        loss = loss_of(leaves, inputs, spec, head, implementation, **options)
        torch.autograd.grad(loss.total, leaves)
    return memory.peak_bytes - sum(leaf.nbytes for leaf in leaves[1:])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_memory_does_not_grow_with_the_classes(head, implementation) -> None:
    small, large = (peak_beyond_weight_gradient(C, head, implementation, 0) for C in (512, 4096))
    assert abs(small - large) <= 64
    scores = 8 * 4096 * 4
    assert 0 < small < scores / 4
    with_budget = peak_beyond_weight_gradient(4096, head, implementation, scores // 2)
    assert small + scores // 4 < with_budget <= small + scores // 2


def state_of(
    steps: Singles, scores: torch.Tensor, labels: torch.Tensor, cut: tuple[int, int]
) -> State:
    start, stop = cut
    state = empty_state(len(labels), scores, scores.dtype)
    first, second = (x[:, start:stop].clone() for x in scores.chunk(2))
    if stop > start:
        steps.accumulate_(state, first, second, labels, start, CHOICES)
        assert torch.equal(torch.cat([first, second]), scores[:, start:stop]), "left as they were"
    return state


CHOICES = Choices.of(PairLossSpec(similarity="none", label_smoothing=0.1), 1.0)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 12), st.lists(st.integers(0, 12), max_size=5), st.integers(0, 9999))
def test_shards_of_any_sizes_tell_all_that_matters(primitives, C, cuts, seed) -> None:
    """Three numbers an image, and the sum for smoothing; ties are broken as by `argmax`."""
    made = torch.Generator().manual_seed(seed)
    scores = torch.randint(-2, 3, (10, C), generator=made).double()
    labels = torch.randint(-1, C, (10,), generator=made)
    own, steps = labels.view(2, -1).T.contiguous(), Singles(primitives)
    bounds = (0, *sorted(min(cut, C) for cut in cuts), C)
    told = [
        ClassShards(None, rank, bounds).pack(state_of(steps, scores, own, cut), own, CHOICES)
        for rank, cut in enumerate(itertools.pairwise(bounds))
    ]
    packed = torch.stack(told)
    assert packed.shape[1:] == (5, 2 * 4), "for two images"
    states = ClassShards(None, 0, bounds).unpack(packed, own, CHOICES)
    done = steps.finish(steps.merge(states, CHOICES), own, C, CHOICES)
    valid = labels >= 0
    true = torch.nn.functional.cross_entropy(
        scores, labels.clamp(min=0), reduction="none", label_smoothing=0.1
    )
    ce, tops = done.values[:, :2].T.flatten(), done.tops.T.flatten()
    torch.testing.assert_close(ce, true * valid, rtol=1e-12, atol=1e-13)
    assert torch.equal((tops == labels) & valid, (scores.argmax(1) == labels) & valid)
    whole = steps.finish(state_of(steps, scores, own, (0, C)), own, C, CHOICES)
    assert torch.equal(whole.tops.T.flatten(), torch.where(valid, scores.argmax(1), -1))


def test_an_odd_image_gets_a_partner_that_counts_nothing() -> None:
    features = torch.arange(6.0).view(3, 2)
    margins = RowMargins(torch.zeros(3), torch.ones(3))
    halves = two_at_a_time(features, torch.tensor([4, -1, 2]), margins, cosine=False)
    assert halves.rows.tolist() == [[0, 1], [0, 0], [4, 5], [0, 0]]
    assert halves.labels.tolist() == [[4, 2], [-1, -1]]
    assert halves.margins.tolist() == [[1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 0]]
