"""Classes with several sub-centres by chunks, against float64 over the whole cosines."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.losses import PairLossSpec, fused
from distill.losses.linear_scores import ClassScores
from distill.losses.live_memory import LiveMemory

sys.path.insert(0, str(Path(__file__).parent))
import row_cases
from linear_cases import ARC, Inputs, by_chunks, by_whole_scores, loss_of, make_inputs, row_margins

needs_native = pytest.mark.skipif(
    "cpu" not in fused.native_devices(), reason="the native extension is not built"
)
IMPLEMENTATIONS = ["reference", pytest.param("native", marks=needs_native)]
SPECS = {
    "none": PairLossSpec(similarity="none", logit_scale=16.0),
    "kl": PairLossSpec(**ARC),
    "ce": PairLossSpec(similarity="ce", stop_gradient="first", label_smoothing=0.1, **ARC),
    "mmd": PairLossSpec(similarity="mmd", logit_scale=16.0, margin_cosine=0.3),
    "topk": PairLossSpec(topk_classes=4, logit_scale=16.0, margin_angle_rad=0.3),
}


def agree(ours: list[torch.Tensor], true: list[torch.Tensor]) -> None:
    for a, b in zip(ours, true, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("K", [1, 2, 5])
def test_float64_is_the_plain_formula(K, name, implementation) -> None:
    """Every field of the loss, and the gradients of features and sub-centres."""
    inputs = make_inputs(5, 7, 23, "cosine", sub_centres=K)
    agree(
        by_chunks(inputs, SPECS[name], "cosine", implementation),
        by_whole_scores(inputs, SPECS[name], "cosine"),
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_margins_of_each_image(implementation) -> None:
    inputs, spec = make_inputs(5, 7, 23, "cosine", sub_centres=3), PairLossSpec(logit_scale=16.0)
    margins = row_margins(5)
    agree(
        by_chunks(inputs, spec, "cosine", implementation, margins=margins),
        by_whole_scores(inputs, spec, "cosine", margins=margins),
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("N", [1, 6])
def test_single_images(N, implementation) -> None:
    inputs = make_inputs(N, 7, 23, "cosine", sub_centres=3)
    spec = PairLossSpec(**ARC, label_smoothing=0.1)
    _, weights, right, mean, *gradients = row_cases.by_torch(inputs, spec, "cosine")
    correct = (weights * right).sum() / weights.sum()
    agree(
        row_cases.by_chunks(inputs, spec, "cosine", implementation),
        [mean, mean, correct, *gradients],
    )


def with_equal_cosines(seed: int) -> Inputs:
    """Vectors of 1 and -1, whose cosines have no rounding; the last sub-centre is the second."""
    inputs = make_inputs(6, 4, 9, "cosine", sub_centres=4, seed=seed)
    signs = [torch.sign(x) for x in (inputs.first, inputs.second, inputs.weight)]
    signs[2][:, 3] = signs[2][:, 1]
    return replace(inputs, first=signs[0], second=signs[1], weight=signs[2])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_of_equal_cosines_the_first_gets_the_gradient(implementation, seed) -> None:
    inputs, spec = with_equal_cosines(seed), PairLossSpec(logit_scale=4.0, label_smoothing=0.1)
    ours = by_chunks(inputs, spec, "cosine", implementation)
    agree(ours, by_whole_scores(inputs, spec, "cosine"))
    assert not ours[-1][:, 3].any(), "the last of two that are equal"
    assert ours[-1][:, 1].any()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 30), st.integers(1, 33), st.integers(1, 4), st.sampled_from(sorted(SPECS)))
def test_any_chunk_and_budget_give_the_same(C, chunk, K, name) -> None:
    """Chunks up to rounding, budgets to the bit."""
    inputs = make_inputs(3, 4, max(C, 5), "cosine", sub_centres=K)
    nothing, some, everything = (
        by_chunks(inputs, SPECS[name], "cosine", chunk_classes=chunk, memory_budget_bytes=budget)
        for budget in (0, 400, 2**30)
    )
    for a, b, c in zip(nothing, some, everything, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)
    agree(nothing, by_chunks(inputs, SPECS[name], "cosine", chunk_classes=100))


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
@pytest.mark.parametrize("K", [1, 3])
def test_a_budget_counts_scores_and_whose_they_are(monkeypatch, K, kept) -> None:
    """25 classes are 5 chunks of 2 x 4 x 5 scores of 8 bytes, or of 9 where there is a choice."""
    made: list[int] = []
    original = ClassScores.of
    monkeypatch.setattr(
        ClassScores, "of", lambda self, a, b: made.append(a) or original(self, a, b)
    )
    inputs = make_inputs(4, 6, 25, "cosine", sub_centres=K)
    budget = kept * 2 * 4 * 5 * (8 if K == 1 else 9)
    for bytes_there, again in ((budget, 5 - kept), (budget - 1, 5 - max(kept - 1, 0))):
        made.clear()
        if bytes_there >= 0:
            by_chunks(inputs, SPECS["kl"], "cosine", memory_budget_bytes=bytes_there)
            assert len(made) == 5 + again


def test_memory_does_not_grow_with_the_classes() -> None:
    def beyond_weight_gradient(C: int) -> int:
        inputs = make_inputs(4, 8, C, "cosine", sub_centres=3).to(torch.float32)
        leaves, options = inputs.leaves(), {"chunk_classes": 64, "memory_budget_bytes": 0}
        with LiveMemory() as memory:
            loss = loss_of(leaves, inputs, SPECS["kl"], "cosine", **options)
            torch.autograd.grad(loss.total, leaves)
        return memory.peak_bytes - leaves[2].nbytes

    small, large = beyond_weight_gradient(512), beyond_weight_gradient(4096)
    assert abs(small - large) <= 64
    assert 0 < small < 2 * 4 * 4096 * 4


def test_16_bits_are_near() -> None:
    inputs = make_inputs(6, 16, 50, "cosine", sub_centres=3)
    inputs = inputs.to(torch.bfloat16)
    true = by_whole_scores(inputs.to(torch.float64), SPECS["kl"], "cosine")
    ours = by_chunks(inputs, SPECS["kl"], "cosine")
    assert [x.dtype for x in ours[-3:]] == [torch.bfloat16] * 3
    torch.testing.assert_close(ours[0].double(), true[0], rtol=1e-2, atol=0.0)
    for a, b in zip(ours[-3:], true[-3:], strict=True):
        assert (a.double() - b).norm() < 0.02 * b.norm()
