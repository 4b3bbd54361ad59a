"""Margins of each image, against independent formulas in float64."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import UserError
from distill.losses import PairLossSpec, RowMargins, margined_logits, pair_loss, pair_loss_and_grad
from distill.losses.margin import margined

sys.path.insert(0, str(Path(__file__).parent))
from linear_cases import by_chunks, by_whole_scores, make_inputs, row_margins
from loss_cases import needs_native

IMPLEMENTATIONS = ["reference", pytest.param("native", marks=needs_native)]
S, T = 16.0, 2.5


def by_arccos(cosine: float, angle: float, off: float) -> float:
    """The papers' formula, with what is ours beyond its range."""
    theta = math.acos(cosine) + angle
    if theta > math.pi:
        return cosine - (1 - math.cos(angle)) - off
    return math.cos(max(theta, 0.0)) - off


def cross_entropies(cosines: np.ndarray, labels: list[int], angle, off) -> np.ndarray:
    """Of each row, from softmax's definition."""
    found = []
    for row, (label, m, k) in enumerate(zip(labels, angle, off, strict=True)):
        logits = S * cosines[row].copy()
        logits[label] = S * by_arccos(cosines[row, label], m, k)
        found.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
    return np.array(found)


def example(B: int = 4, C: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines, float64, with targets at both ends."""
    made = torch.Generator().manual_seed(3)
    first, second = torch.rand(2, B, C, generator=made, dtype=torch.float64) * 1.8 - 0.9
    labels = torch.randint(0, C, (B,), generator=made)
    first[0, labels[0]], second[1, labels[1]], first[2, labels[2]] = 0.97, 0.98, -0.99
    return first, second, labels


MARGINS = RowMargins(
    torch.tensor([-0.4, 0.3, 0.4, -0.2, 0.1, -0.5, 0.0, 0.2], dtype=torch.float64),
    torch.tensor([0.8, 0.1, 0.0, 0.6, 0.3, 0.7, 0.4, 0.2], dtype=torch.float64),
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.floats(-1.5, 1.5), st.floats(-0.9999, 0.9999))
def test_psi_is_the_arccos_formula_for_angles_of_both_signs(angle: float, cosine: float) -> None:
    both = (torch.tensor([x], dtype=torch.float64) for x in (cosine, angle))
    assert margined(*both, 0.1).item() == pytest.approx(by_arccos(cosine, angle, 0.1), abs=1e-7)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-1.5, 1.5), st.floats(-1, 1), st.floats(-1, 1))
def test_psi_never_falls_with_the_cosine(angle: float, one: float, other: float) -> None:
    pair = torch.tensor([min(one, other), max(one, other)], dtype=torch.float64)
    low, high = margined(pair, torch.full((2,), angle, dtype=torch.float64), 0.0)
    assert low <= high + 1e-7


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_cross_entropies_are_those_of_the_definition(implementation: str) -> None:
    first, second, labels = example()
    loss = pair_loss(
        first,
        second,
        labels,
        temperature=T,
        weight=1.0,
        spec=PairLossSpec(logit_scale=S),
        margins=MARGINS,
        reduction="none",
        implementation=implementation,
    )
    angle, off = (one.tolist() for one in MARGINS)
    for found, cosines, side in ((loss.ce_first, first, 0), (loss.ce_second, second, 4)):
        own = slice(side, side + 4)
        true = cross_entropies(cosines.numpy(), labels.tolist(), angle[own], off[own])
        np.testing.assert_allclose(found.numpy(), true, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradients_are_numerical_differences_of_the_definition(implementation: str) -> None:
    """Through the targets' cosines, at both ends too: 0 below, the slope 1 beyond."""
    first, second, labels = example()
    leaf = first.clone().requires_grad_()
    options = {"temperature": T, "weight": 0.0, "spec": PairLossSpec(logit_scale=S)}
    options |= {"margins": MARGINS, "reduction": "sum", "implementation": implementation}
    (ours,) = torch.autograd.grad(pair_loss(leaf, second, labels, **options).total, leaf)
    angle, off = (one.tolist()[:4] for one in MARGINS)

    def total(cosines: torch.Tensor) -> float:
        return cross_entropies(cosines.numpy(), labels.tolist(), angle, off).sum()

    for row, column in np.ndindex(*first.shape):
        higher, lower = first.clone(), first.clone()
        higher[row, column] += 1e-6
        lower[row, column] -= 1e-6
        expected = (total(higher) - total(lower)) / 2e-6
        assert ours[row, column].item() == pytest.approx(expected, abs=2e-6)
    assert ours[0, labels[0]] == 0.0


@needs_native
@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_native_op_and_the_reference_agree(similarity: str, dtype: torch.dtype) -> None:
    first, second, labels = example()
    spec = PairLossSpec(similarity=similarity, logit_scale=S, label_smoothing=0.1)
    found = []
    for implementation, kind in (("native", dtype), ("reference", torch.float64)):
        one = pair_loss_and_grad(
            first.to(dtype).to(kind),
            second.to(dtype).to(kind),
            labels,
            temperature=T,
            weight=0.5,
            spec=spec,
            margins=RowMargins(*(x.to(dtype) for x in MARGINS)),
            implementation=implementation,
        )
        found.append([*one.loss, one.grad_first, one.grad_second])
    tolerance = 1e-12 if dtype == torch.float64 else 3e-6
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_margins_take_the_type_of_the_scores(implementation: str) -> None:
    first, second, labels = (x.float() if x.is_floating_point() else x for x in example())
    spec, options = PairLossSpec(logit_scale=S), {"implementation": implementation}
    wide, narrow = (
        pair_loss(first, second, labels, temperature=T, weight=1.0, spec=spec, margins=m, **options)
        for m in (MARGINS, RowMargins(*(x.float() for x in MARGINS)))
    )
    assert {x.dtype for x in wide} == {torch.float32}
    torch.testing.assert_close(wide.total, narrow.total)
    own = RowMargins(*(x[:4] for x in MARGINS))
    assert margined_logits(first, labels, spec, own).dtype == torch.float32


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("similarity", ["kl", "mmd"])
def test_chunks_and_whole_scores_agree(implementation: str, similarity: str) -> None:
    inputs = make_inputs(6, 5, 23, "cosine")
    spec = PairLossSpec(similarity=similarity, logit_scale=S)
    options = {"margins": row_margins(6)}
    ours = by_chunks(inputs, spec, "cosine", implementation, **options)
    true = by_whole_scores(inputs, spec, "cosine", "reference", **options)
    for a, b in zip(ours, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_chunks_and_whole_scores_agree_where_psi_is_bent(implementation: str) -> None:
    """Images at chosen angles to their class: where the angle's sum is held at 0, and beyond pi."""
    inputs = make_inputs(40, 2, 23, "cosine")
    made = torch.Generator().manual_seed(5)
    turned = torch.rand(80, generator=made, dtype=torch.float64) ** 3 * math.pi / 2
    turned[::2] = math.pi - turned[::2]
    own = inputs.weight[inputs.labels.clamp(min=0).repeat(2)]
    towards = torch.atan2(own[:, 1], own[:, 0]) + turned
    first, second = torch.stack([towards.cos(), towards.sin()], 1).chunk(2)
    inputs = replace(inputs, first=first.contiguous(), second=second.contiguous())
    margins = RowMargins(
        2 * torch.rand(80, generator=made, dtype=torch.float64) - 1, torch.zeros(80).double()
    )
    moved = turned + margins.angle_rad
    assert (moved < 0).sum() > 5 < (moved > math.pi).sum()
    options = {"margins": margins, "reduction": "none"}
    spec = PairLossSpec(logit_scale=S)
    ours = by_chunks(inputs, spec, "cosine", implementation, **options)
    true = by_whole_scores(inputs, spec, "cosine", "reference", **options)
    for a, b in zip(ours, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equal_margins_of_all_are_those_of_the_spec(implementation: str) -> None:
    inputs = make_inputs(4, 5, 23, "cosine")
    angle, cosine = (torch.full((8,), x, dtype=torch.float64) for x in (0.3, 0.2))
    rows = by_chunks(
        inputs,
        PairLossSpec(logit_scale=S),
        "cosine",
        implementation,
        margins=RowMargins(angle, cosine),
    )
    spec = PairLossSpec(logit_scale=S, margin_angle_rad=0.3, margin_cosine=0.2)
    for a, b in zip(rows, by_chunks(inputs, spec, "cosine", implementation), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


WRONG = {
    "shape": (RowMargins(torch.zeros(4), torch.zeros(8)), {}, "margins.angle_rad is torch.float32"),
    "type": (RowMargins(torch.zeros(8), torch.zeros(8, dtype=torch.int64)), {}, "margins.cosine"),
    "angle": (RowMargins(torch.full((8,), 1.6), torch.zeros(8)), {}, "margins.angle_rad[0] = 1.6"),
    "cosine": (RowMargins(torch.zeros(8), torch.full((8,), math.inf)), {}, "margins.cosine[0] = i"),
    "both": (MARGINS, {"margin_cosine": 0.1}, "spec has margins too"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_margins_are_named(case: str) -> None:
    margins, choices, message = WRONG[case]
    first, second, labels = example()
    spec = PairLossSpec(logit_scale=S, **choices)
    options = {"temperature": T, "weight": 1.0, "spec": spec, "margins": margins}
    with pytest.raises(UserError) as error:
        pair_loss(first, second, labels, **options)
    assert message in str(error.value)
    with pytest.raises(UserError, match="margin"):
        by_chunks(make_inputs(4, 5, 23, "cosine"), spec, "cosine", margins=margins)


def test_a_linear_head_has_no_cosine_for_them() -> None:
    with pytest.raises(UserError, match="it has no cosine to put a margin on"):
        by_chunks(make_inputs(4, 5, 23, "linear"), PairLossSpec(), "linear", margins=MARGINS)
