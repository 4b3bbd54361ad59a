"""Rows that break careless arithmetic: -inf, NaN, huge gaps, ignored labels, strides, threads."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from distill.losses import PairLossSpec, fused, pair_loss, reference

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import Case, make_case, needs_native, values_and_gradients

pytestmark = needs_native
SPECS = [PairLossSpec(similarity=s) for s in ("none", "kl", "ce", "mmd")]


def agree(case: Case, spec: PairLossSpec, temperature: float = 2.0) -> None:
    wide = Case(case.first.double(), case.second.double(), case.labels)
    true = values_and_gradients("reference", wide, temperature, spec)
    ours = values_and_gradients("native", case, temperature, spec)
    for a, b in zip(ours, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.similarity)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_classes_excluded_on_both_sides(spec: PairLossSpec, dtype: torch.dtype) -> None:
    case = make_case(3, 2100, 2.0, dtype=dtype).to(dtype)
    case.labels.copy_(torch.tensor([0, 2099, 1500]))
    for z in (case.first, case.second):
        z[:, 10:1400] = -torch.inf  # a whole block of the vector loops lies inside
    terms = fused.row_terms(case.first, case.second, case.labels, 2.0, spec)
    assert all(t.isfinite().all() for t in terms.parts)
    if dtype in (torch.float64, torch.float32):
        for temperature in (2.0, 2.5, 3.0):
            agree(case, spec, temperature)


@pytest.mark.parametrize("excluded", ["first", "second"])
def test_a_class_excluded_on_one_side_is_infinite_only_where_the_other_needs_it(
    excluded: str,
) -> None:
    case = make_case(2, 9, 1.0).to(torch.float32)
    case.labels.copy_(torch.tensor([0, 1]))
    getattr(case, excluded)[:, 5] = -torch.inf
    needed = {"first": "reverse", "second": "forward"}[excluded]
    for compute in (fused.row_terms, reference.row_terms):
        for direction in ("forward", "reverse"):
            spec = PairLossSpec(direction=direction)
            terms = compute(case.first, case.second, case.labels, 2.0, spec)
            assert bool(terms.similarity.isfinite().all()) == (direction != needed)
            assert terms.ce_first.isfinite().all() and terms.ce_second.isfinite().all()
    agree(case, PairLossSpec(direction="reverse" if needed == "forward" else "forward"))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.similarity)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [0, 3, 1500, 2999])
def test_nan_poisons_its_row_and_no_other(spec: PairLossSpec, bad: float, column: int) -> None:
    case = make_case(3, 3000, 1.0).to(torch.float32)
    case.labels.copy_(torch.tensor([5, 3, 7]))
    clean = values_and_gradients("native", case, 2.0, spec)
    case.first[1, column] = bad
    ce_first, ce_second, similarity, grad_first, grad_second = values_and_gradients(
        "native", case, 2.0, spec
    )
    assert ce_first[1].isnan()
    assert grad_first[1].isnan().any()
    if spec.similarity != "none":
        assert similarity[1].isnan()
        assert grad_second[1].isnan().all()
    for row in (0, 2):
        assert torch.equal(ce_first[row], clean[0][row])
        assert torch.equal(grad_first[row], clean[3][row])
    assert torch.equal(ce_second, clean[1])
    if math.isnan(bad):
        assert fused.row_terms(*vars(case).values(), 2.0, spec).tops[1, 0] == -1


def test_a_row_of_nothing_but_nan() -> None:
    case = make_case(1, 70000, 1.0).to(torch.float32)
    case.first.fill_(torch.nan)
    for value in values_and_gradients("native", case, 2.0, PairLossSpec())[2:]:
        assert value.isnan().all()


@pytest.mark.parametrize("gap", [30.0, 80.0])
def test_a_far_target_keeps_loss_and_gradient(gap: float) -> None:
    z = torch.zeros(1, 3)
    z[0, 0] = gap
    case = Case(z, z.clone(), torch.tensor([0]))
    ce, _, _, grad, _ = values_and_gradients("native", case, 1.0, PairLossSpec(similarity="none"))
    expected = 2.0 * math.exp(-gap)
    assert ce.item() == pytest.approx(expected, rel=1e-5)
    assert grad[0].tolist() == pytest.approx([-expected, expected / 2, expected / 2], rel=1e-5)


@pytest.mark.parametrize("offset", [1e3, -1e3])
def test_an_offset_of_one_side_changes_nothing(offset: float) -> None:
    case = make_case(2, 64, 1.0, apart=0.0, dtype=torch.float16)
    case.second.add_(offset)
    narrow = case.to(torch.float32)
    for spec in SPECS:
        agree(narrow, spec, 1.0)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.similarity)
def test_ignored_pairs_touch_nothing_whatever_they_hold(spec: PairLossSpec) -> None:
    case = make_case(5, 33, 2.0).to(torch.float32)
    case.labels.copy_(torch.tensor([-1, 4, -1, 32, 0]))
    case.first[0, 3], case.second[2, 1] = torch.nan, torch.inf
    ce_first, ce_second, similarity, *grads = values_and_gradients("native", case, 2.0, spec)
    ignored = case.labels == -1
    for value in (ce_first, ce_second, similarity, *grads):
        assert not value[ignored].any()
        assert value.isfinite().all()
    agree(case, spec)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_strided_and_unaligned_rows(dtype: torch.dtype) -> None:
    case = make_case(4, 301, 2.0, dtype=dtype).to(dtype)
    expected = fused.row_terms(case.first, case.second, case.labels, 2.0, PairLossSpec())
    wide = torch.full((4, 2 * 301 + 7), torch.nan, dtype=dtype)
    first, second = wide[:, 1:302], wide[:, 305:606]
    first.copy_(case.first)
    second.copy_(case.second)
    ours = fused.row_terms(first, second, case.labels, 2.0, PairLossSpec())
    for a, b in zip(ours[:3], expected[:3], strict=True):
        assert torch.equal(a, b)
    both = torch.cat([case.first, case.second]).requires_grad_()
    halves = both.chunk(2)
    fused.row_terms(*halves, case.labels, 2.0, PairLossSpec()).similarity.sum().backward()
    apart = values_and_gradients("native", case, 2.0, PairLossSpec(), SIMILARITY_ONLY)
    assert torch.equal(both.grad.double(), torch.cat(apart[3:]))


SIMILARITY_ONLY = (torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0))


def test_inputs_are_not_written_to_and_outputs_are_written_whole() -> None:
    case = make_case(3, 1030, 2.0, ignored=True).to(torch.float32)
    before = (case.first.clone(), case.second.clone())
    values_and_gradients("native", case, 2.0, PairLossSpec())
    assert torch.equal(case.first, before[0])
    assert torch.equal(case.second, before[1])
    for _ in range(3):  # memory that an output may be given again
        poison = [torch.full((3, 1030), torch.nan) for _ in range(4)]
        del poison
        ours = values_and_gradients("native", case, 2.0, PairLossSpec())
        assert all(x.isfinite().all() for x in ours)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.similarity)
def test_the_same_bits_every_time_and_for_any_number_of_threads(spec: PairLossSpec) -> None:
    case = make_case(3, 200_001, 3.0).to(torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            results.append(values_and_gradients("native", case, 2.0, spec))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd", "none"])
@pytest.mark.parametrize("mmd_kernel", ["linear", "rbf"])
def test_pair_loss_is_the_same_by_both_implementations(similarity: str, mmd_kernel: str) -> None:
    case = make_case(6, 50, 2.0, ignored=True).to(torch.float32)
    spec = PairLossSpec(similarity=similarity, mmd_kernel=mmd_kernel, ce="mean")
    results = []
    for implementation in ("reference", "native"):
        first, second = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
        loss = pair_loss(
            first,
            second,
            case.labels,
            temperature=3.0,
            weight=0.5,
            spec=spec,
            implementation=implementation,
        )
        loss.total.backward()
        assert not any(x.requires_grad for x in loss[1:])
        results.append((*loss, first.grad, second.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_weight_zero_measures_the_similarity_and_does_not_add_it() -> None:
    case = make_case(2, 5, 1.0).to(torch.float32)
    case.second[:, 4] = -torch.inf  # KL(p||q) is infinite
    case.labels.zero_()
    first = case.first.clone().requires_grad_()
    loss = pair_loss(
        first, case.second, case.labels, temperature=2.0, weight=0.0, spec=PairLossSpec()
    )
    loss.total.backward()
    assert loss.similarity.isinf()
    torch.testing.assert_close(loss.total.detach(), loss.ce_first + loss.ce_second)
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("at_first", "later"), [(-0.0, 0.0), (0.0, -0.0)])
def test_zeros_of_either_sign_are_equal(dtype: torch.dtype, at_first: float, later: float) -> None:
    """The first of equal largest scores counts, whatever thread or vector meets it again."""
    z = torch.full((2, 5003), -1.0, dtype=dtype)
    z[:, 100], z[:, 1001:] = at_first, later
    z[1, 100] = -1.0
    terms = fused.row_terms(z, z.flip(0), torch.tensor([7, 7]), 2.0, PairLossSpec())
    assert terms.tops.tolist() == [[100, 1001], [1001, 100]]


def test_top_of_reference_and_native_agree() -> None:
    case = make_case(8, 40, 1.0).to(torch.float32)
    ours = fused.row_terms(*vars(case).values(), 2.0, PairLossSpec())
    true = reference.row_terms(*vars(case).values(), 2.0, PairLossSpec())
    assert torch.equal(ours.tops, true.tops)
