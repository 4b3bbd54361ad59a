"""Classes in chunks, in any cut and order of merging: the same rows as in one piece."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.losses import PairLossSpec, fused, registration

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import Case, make_case, needs_native

pytestmark = needs_native
C = 60
OPS = torch.ops.pairdistill


def streamed(case: Case, cuts: list[int], parts: int, choices: tuple) -> tuple[torch.Tensor, ...]:
    """Chunks between the cuts go to ``parts`` states in turn; all outputs and both gradients."""
    dtype = torch.float64 if case.first.dtype == torch.float64 else torch.float32
    B = len(case.labels)
    states = [registration.empty_state(B, dtype, torch.device("cpu")) for _ in range(parts)]
    chunks = list(pairwise([0, *cuts, C]))
    for i, (a, b) in enumerate(chunks):
        scores = case.first[:, a:b], case.second[:, a:b]
        OPS.pair_loss_accumulate_(*states[i % parts], *scores, case.labels, a, *choices)
    merged = OPS.pair_loss_merge(*(torch.stack(x) for x in zip(*states, strict=True)), *choices)
    values, extras, tops, stats = OPS.pair_loss_finish(*merged, case.labels, C, *choices)
    if choices[1] == fused.KINDS["mmd"]:
        sums = torch.zeros(B, 2, dtype=dtype)
        for a, b in chunks:
            scores = case.first[:, a:b], case.second[:, a:b]
            OPS.pair_loss_mmd_accumulate_(sums, *scores, case.labels, a, stats, *choices)
        OPS.pair_loss_mmd_finish_(stats, values, sums, case.labels, *choices)
    up = torch.arange(1, 3 * B + 1, dtype=dtype).view(B, 3) / (3 * B)
    first, second = case.first.clone(), case.second.clone()
    for a, b in chunks:
        scores = first[:, a:b], second[:, a:b]
        OPS.pair_loss_gradient_(*scores, case.labels, a, up, stats, C, *choices)
    return values, extras, tops, first, second


def whole(case: Case, choices: tuple) -> tuple[torch.Tensor, ...]:
    values, extras, tops, stats = OPS.pair_loss(case.first, case.second, case.labels, *choices)
    B = len(case.labels)
    up = torch.arange(1, 3 * B + 1, dtype=values.dtype).view(B, 3) / (3 * B)
    grads = OPS.pair_loss_backward(up, case.first, case.second, case.labels, stats, *choices)
    return values, extras, tops, *grads


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    cuts=st.lists(st.integers(1, C - 1), unique=True, max_size=6).map(sorted),
    parts=st.integers(1, 4),
    similarity=st.sampled_from(["none", "kl", "ce", "mmd"]),
    temperature=st.sampled_from([1.0, 2.5, 3.0]),
    masked=st.booleans(),
)
def test_any_cut_and_any_merge(cuts, parts, similarity, temperature, masked) -> None:
    spec = PairLossSpec(similarity=similarity, logit_scale=2.0, margin_cosine=0.2,
                        label_smoothing=0.0 if masked else 0.1)  # fmt: skip
    choices = fused.choices(spec, temperature)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        case = make_case(4, C, 3.0, dtype=dtype, ignored=True).to(dtype)
        case.labels.copy_(torch.tensor([0, C - 1, -1, 30]))
        if masked:  # whole chunks may be excluded on both sides
            case.first[:, 1:29] = case.second[:, 1:29] = -torch.inf
        ours, true = streamed(case, cuts, parts, choices), whole(case, choices)
        for a, b in zip(ours, true, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_nan_poisons_its_row_of_a_stream() -> None:
    case = make_case(4, C, 1.0).to(torch.float32)
    case.first[2, 17] = torch.nan
    values, extras, tops, *_ = streamed(case, [10, 20], 2, fused.choices(PairLossSpec(), 2.0))
    assert values[2, 0].isnan()
    assert values[2, 1].isfinite()
    assert extras[2, 0].isnan()
    assert tops[2].tolist() == [-1, int(case.second[2].argmax())]
    assert values[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("C_of_chunk", [1, 100])
def test_chunks_of_one_class_and_labels_elsewhere(C_of_chunk: int) -> None:
    """A chunk that does not hold the target leaves y at 0; one of one class has no stride."""
    state, tops = registration.empty_state(2, torch.float32, torch.device("cpu"))
    x = torch.rand(2, C_of_chunk)
    labels = torch.tensor([7, 500])
    choices = fused.choices(PairLossSpec(), 2.0)
    OPS.pair_loss_accumulate_(state, tops, x, 2 * x, labels, 200, *choices)
    assert not state[:, 8:10].any()
    torch.testing.assert_close(state[:, 0], x.amax(1))
    assert torch.equal(tops[:, 1], 200 + x.argmax(1))
