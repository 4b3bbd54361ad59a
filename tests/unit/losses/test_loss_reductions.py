"""Weights, reductions and the loss that comes with its gradient, against sums written out."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from distill.losses import PairLossSpec, RowMargins, pair_loss, pair_loss_and_grad
from distill.losses.rbf import batch_mmd

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import Case, make_case, needs_native

IMPLEMENTATIONS = ["reference", pytest.param("native", marks=needs_native)]
T, WEIGHT = 3.0, 0.7
WEIGHTS = torch.tensor([2.0, 0.0, 1.0, 0.25, 3.0, 1.0], dtype=torch.float64)


def written_out(case: Case) -> torch.Tensor:
    """CE(first) + CE(second) + WEIGHT T^2 symmetric KL of each pair, by torch's own functions."""
    z1, z2, y = case.first, case.second, case.labels
    rows = F.cross_entropy(z1, y, reduction="none", ignore_index=-1)
    rows = rows + F.cross_entropy(z2, y, reduction="none", ignore_index=-1)
    a, b = (z / T for z in (z1, z2))
    a, b = a.log_softmax(1), b.log_softmax(1)
    kl = ((a.exp() - b.exp()) * (a - b)).sum(1) / 2
    return rows + WEIGHT * T * T * kl * (y >= 0)


@pytest.mark.parametrize("implementation", ["reference", "auto"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_reductions(reduction: str, weighted: bool, implementation: str) -> None:
    case = make_case(6, 37, 2.0, ignored=True)
    rows = written_out(case)
    w = (WEIGHTS if weighted else torch.ones(6)).double() * (case.labels >= 0)
    expected = {"none": w * rows, "sum": (w * rows).sum(), "mean": (w * rows).sum() / w.sum()}
    upstream = torch.rand(6, dtype=torch.float64) if reduction == "none" else torch.tensor(1.5)
    results = []
    for total in (None, expected[reduction]):
        first, second = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
        if total is None:
            loss = pair_loss(
                first,
                second,
                case.labels,
                temperature=T,
                weight=WEIGHT,
                spec=PairLossSpec(),
                sample_weights=WEIGHTS if weighted else None,
                reduction=reduction,
                implementation=implementation,
            )
            total = loss.total
        else:
            total = written_out(Case(first, second, case.labels)) * w
            total = total if reduction == "none" else total.sum()
            total = total / w.sum() if reduction == "mean" else total
        (total * upstream).sum().backward()
        results.append((total.detach(), first.grad, second.grad))
    for ours, true in zip(*results, strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[0][0], expected[reduction])
    if reduction == "none":
        tops = [z.argmax(1) for z in (case.first, case.second)]
        agree = (tops[0] == tops[1]).double() * (case.labels >= 0)
        assert torch.equal(loss.agreement, agree)
        correct = (tops[0] == case.labels).double()
        assert torch.equal(loss.correct_first, correct)
    else:
        ce = F.cross_entropy(case.first, case.labels, reduction="none", ignore_index=-1)
        torch.testing.assert_close(loss.ce_first, (w * ce).sum() / w.sum())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_answers_are_counted_by_hand(implementation: str) -> None:
    """Class 0 like any other, of equal scores the first; NaN and ignored pairs are no success."""
    made = torch.Generator().manual_seed(2)
    sides = torch.randint(0, 3, (2, 200, 3), generator=made).float()
    sides[torch.rand(2, 200, 3, generator=made) < 0.05] = torch.nan
    labels = torch.randint(-1, 3, (200,), generator=made)
    margins = RowMargins(torch.zeros(400, requires_grad=True), torch.zeros(400, requires_grad=True))
    for of_all in (None, margins):
        loss = pair_loss(
            *sides,
            labels,
            temperature=T,
            weight=WEIGHT,
            spec=PairLossSpec(),
            margins=of_all,
            reduction="none",
            implementation=implementation,
        )
        assert not loss.total.requires_grad, "margins are constants"
        for row, label in enumerate(labels.tolist()):
            tops = [
                None if any(map(math.isnan, z)) else z.index(max(z)) for z in sides[:, row].tolist()
            ]
            known = label >= 0
            assert loss.correct_first[row] == (known and tops[0] == label)
            assert loss.correct_second[row] == (known and tops[1] == label)
            assert loss.agreement[row] == (known and tops[0] == tops[1] is not None)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd", "none"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("C", [37, 70_001])
def test_in_one_go_is_the_same_as_through_autograd(
    C: int, reduction: str, similarity: str, dtype: torch.dtype
) -> None:
    case = make_case(6, C, 2.0, dtype=dtype, ignored=True).to(dtype)
    settings = {
        "temperature": 2.5, "weight": WEIGHT, "sample_weights": WEIGHTS, "reduction": reduction,
        "spec": PairLossSpec(similarity=similarity, ce="mean", label_smoothing=0.1,
                             logit_scale=1.5, margin_cosine=0.3),
    }  # fmt: skip
    first, second = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
    loss = pair_loss(first, second, case.labels, **settings)
    loss.total.sum().backward()
    poison = [torch.full((6, C), torch.nan, dtype=dtype) for _ in range(4)]
    del poison
    ours = pair_loss_and_grad(case.first, case.second, case.labels, **settings)
    # Statistics that stay in float64 round differently than those that are saved as float32.
    narrow = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3}[dtype]
    for a, b in zip(ours.loss, loss, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=1e-6)
    for a, b in ((ours.grad_first, first.grad), (ours.grad_second, second.grad)):
        torch.testing.assert_close(a, b, rtol=narrow, atol=narrow * 1e-2)
    wide = torch.full((6, 2 * C + 3), torch.nan, dtype=dtype)
    rows = wide[:, 1 : C + 1], wide[:, C + 2 : 2 * C + 2]
    for row, z in zip(rows, (case.first, case.second), strict=True):
        row.copy_(z)
    inside = pair_loss_and_grad(*rows, case.labels, **settings, inplace=True)
    assert all(torch.equal(a, b) for a, b in zip(inside.loss, ours.loss, strict=True))
    assert torch.equal(rows[0], ours.grad_first)
    assert torch.equal(rows[1], ours.grad_second)
    assert wide[:, [0, C + 1, 2 * C + 2]].isnan().all()


@pytest.mark.parametrize("implementation", ["reference", "auto"])
@pytest.mark.parametrize("inplace", [False, True])
def test_in_one_go_of_a_batch_s_similarity(implementation: str, inplace: bool) -> None:
    """The RBF discrepancy has no operator; with the sum it counts once for each pair."""
    case = make_case(5, 12, 1.0, ignored=True)
    spec = PairLossSpec(similarity="mmd", mmd_kernel="rbf")
    softened = [(z / 2.0).softmax(1) for z in (case.first, case.second)]
    mmd, found = 2.0**2 * batch_mmd(*softened, case.labels >= 0), {}
    for reduction in ("mean", "sum"):
        settings = {"temperature": 2.0, "weight": 0.5, "spec": spec, "reduction": reduction}
        first, second = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
        pair_loss(first, second, case.labels, **settings).total.backward()
        given = case.first.clone(), case.second.clone()
        found[reduction] = pair_loss_and_grad(
            *given, case.labels, **settings, inplace=inplace, implementation=implementation
        )
        torch.testing.assert_close(found[reduction].loss.similarity, mmd)
        for own, x, gradient in zip(given, (first, second), found[reduction][1:], strict=True):
            assert (gradient.data_ptr() == own.data_ptr()) == inplace
            assert inplace or torch.equal(own, x)
        torch.testing.assert_close(found[reduction].grad_first, first.grad)
        torch.testing.assert_close(found[reduction].grad_second, second.grad)
    torch.testing.assert_close(found["sum"].loss.total, 4 * found["mean"].loss.total)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_in_one_go_leaves_autograd_out(implementation: str) -> None:
    case = make_case(5, 12, 1.0)
    sides = case.first.requires_grad_(), case.second.requires_grad_()
    for spec in (PairLossSpec(), PairLossSpec(topk_classes=3)):
        loss, *gradients = pair_loss_and_grad(
            *sides, case.labels, temperature=T, weight=1.0, spec=spec, implementation=implementation
        )
        assert not any(x.requires_grad for x in (*loss, *gradients))


@needs_native
def test_weights_that_sum_to_nothing_give_nothing() -> None:
    case = make_case(3, 9, 1.0).to(torch.float32)
    for reduction in ("mean", "sum"):
        result = pair_loss_and_grad(
            case.first,
            case.second,
            case.labels,
            temperature=T,
            weight=1.0,
            spec=PairLossSpec(),
            sample_weights=torch.zeros(3),
            reduction=reduction,
        )
        assert result.loss.total == 0
        assert not result.grad_first.any()
        assert not result.grad_second.any()


@needs_native
def test_weight_zero_keeps_an_infinite_similarity_out_of_the_gradient() -> None:
    case = make_case(2, 5, 1.0).to(torch.float32)
    case.second[:, 4] = -torch.inf
    case.labels.zero_()
    result = pair_loss_and_grad(
        case.first, case.second, case.labels, temperature=2.0, weight=0.0, spec=PairLossSpec()
    )
    assert result.loss.similarity.isinf()
    assert result.loss.total.isfinite()
    assert result.grad_first.isfinite().all()
    assert result.grad_second.isfinite().all()


@needs_native
@pytest.mark.parametrize("similarity", ["kl", "mmd"])
def test_the_same_bits_row_by_row_and_in_waves(similarity: str) -> None:
    """One thread takes rows whole, four share the pieces of a wave: 9 rows are too few for them."""
    case = make_case(9, 70_001, 2.0, ignored=True).to(torch.float32)
    settings = {"temperature": 2.5, "weight": WEIGHT, "spec": PairLossSpec(similarity=similarity)}
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 2, 4):
            torch.set_num_threads(count)
            loss, *grads = pair_loss_and_grad(case.first, case.second, case.labels, **settings)
            results.append((*loss, *grads))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
