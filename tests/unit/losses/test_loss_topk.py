"""Grouped classes: against the grouped distribution written out, whole and in chunks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config.tree import LossConfig
from distill.errors import UserError
from distill.losses import PairLossSpec, fused, linear_pair_loss, pair_loss, pair_loss_and_grad
from distill.losses.linear_topk import Candidates, packed, unpacked
from distill.losses.registration import NO_CLASS

sys.path.insert(0, str(Path(__file__).parent))
from linear_cases import ARC, by_chunks, by_whole_scores, make_inputs
from loss_cases import make_case, needs_native

IMPLEMENTATIONS = ["reference", pytest.param("native", marks=needs_native)]
KINDS = ("kl", "ce", "mmd")
T = 2.5


def grouped_answer(logits: torch.Tensor, primary: list[int]) -> torch.Tensor:
    """Probabilities of the primary classes, and 1 less their sum, of one row."""
    p = torch.softmax(logits / T, 0)
    own = p[primary]
    return torch.cat([own, 1.0 - own.sum().unsqueeze(0)])


def by_definition(first, second, labels, K: int, spec: PairLossSpec) -> torch.Tensor:
    """Sum over the pairs of the similarity, by sorting, softmax and the definition."""
    total = first.new_zeros(())
    for x, z, label in zip(first, second, labels.tolist(), strict=True):
        if label < 0:
            continue
        order = sorted(range(len(x)), key=lambda c: -x[c].item())
        primary = [label, *[c for c in order if c != label][: K - 1]]
        p, q = grouped_answer(x, primary), grouped_answer(z, primary)
        p = p.detach() if spec.stop_gradient == "first" else p
        q = q.detach() if spec.stop_gradient == "second" else q
        one, other = spec.direction_weights
        if spec.similarity == "kl":
            value = one * (p * (p / q).log()).sum() + other * (q * (q / p).log()).sum()
        elif spec.similarity == "ce":
            value = -one * (p * q.log()).sum() - other * (q * p.log()).sum()
        else:
            value = (p - q).square().sum()
        total = total + spec.similarity_scale(T) * value
    return total


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("similarity", KINDS)
@pytest.mark.parametrize("K", [1, 2, 7, 29])
def test_value_and_gradient_are_the_definitions(implementation, similarity, K) -> None:
    spec = PairLossSpec(
        similarity=similarity,
        direction=("forward", "reverse", "symmetric")[K % 3],
        stop_gradient=("none", "first", "second")[K // 2 % 3],
        topk_classes=K,
    )
    case = make_case(5, 30, 2.0, ignored=True)
    found = []
    for how in ("ours", "definition"):
        sides = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
        if how == "ours":
            options = {"temperature": T, "spec": spec, "implementation": implementation}
            loss, without = (
                pair_loss(*sides, case.labels, weight=weight, reduction="sum", **options)
                for weight in (1.0, 0.0)
            )
            total = 4 * loss.similarity  # the mean of four valid pairs
            wanted = loss.total - without.total
        else:
            total = wanted = by_definition(*sides, case.labels, K, spec)
        gradients = torch.autograd.grad(wanted, sides, allow_unused=True)
        found.append([total.detach(), *gradients])
    ours, true = found
    torch.testing.assert_close(ours[0], true[0], rtol=1e-10, atol=1e-12)
    for a, b in zip(ours[1:], true[1:], strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("similarity", KINDS)
@pytest.mark.parametrize("K", [1, 4, 22])
def test_chunks_find_what_whole_scores_do(implementation, head, similarity, K) -> None:
    """Chunks smaller and larger than K; by-products and the margins' cross-entropies too."""
    choices = ARC if head == "cosine" else {}
    spec = PairLossSpec(similarity=similarity, label_smoothing=0.1, topk_classes=K, **choices)
    inputs = make_inputs(6, 5, 23, head)
    true = by_whole_scores(inputs, spec, head)
    for chunk in (3, 10, 23):
        ours = by_chunks(inputs, spec, head, implementation, chunk_classes=chunk)
        for a, b in zip(ours, true, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 19), st.integers(1, 21), st.integers(0, 99), st.sampled_from([0, 10**6]))
def test_any_cut_into_chunks(K: int, chunk: int, seed: int, budget: int) -> None:
    spec = PairLossSpec(topk_classes=K)
    inputs = make_inputs(4, 3, 20, "linear", seed=seed)
    options = {"chunk_classes": chunk, "memory_budget_bytes": budget}
    ours = by_chunks(inputs, spec, "linear", "reference", **options)
    for a, b in zip(ours, by_whole_scores(inputs, spec, "linear"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types(dtype: torch.dtype) -> None:
    spec = PairLossSpec(topk_classes=5)
    inputs = make_inputs(6, 5, 23, "linear").to(dtype)
    ours = by_chunks(inputs, spec, "linear", "native", chunk_classes=7)
    true = by_whole_scores(inputs.to(torch.float64), spec, "linear")
    tolerance = 2e-5 if dtype == torch.float32 else 6e-2
    for index in (0, 1, 2, 3, 11, 12, 13):
        torch.testing.assert_close(
            ours[index].double(), true[index], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_classes_that_are_excluded_on_both_sides(implementation: str) -> None:
    """Fewer classes with a score than K: the label is not taken twice."""
    case = make_case(3, 12, 1.0)
    excluded = torch.ones(12, dtype=torch.bool)
    excluded[[2, 5, 9]] = False
    case.labels.copy_(torch.tensor([2, 5, 9]))
    case.first[:, excluded] = case.second[:, excluded] = -torch.inf
    options = {"temperature": T, "weight": 1.0, "implementation": implementation}
    all_of_them, few = (
        pair_loss(
            case.first, case.second, case.labels, spec=PairLossSpec(topk_classes=K), **options
        )
        for K in (0, 6)
    )
    torch.testing.assert_close(few.similarity, all_of_them.similarity)


def test_a_small_rest_keeps_its_digits() -> None:
    """1 less the sum of the others would be 0 in float32, and its logarithm without bound."""
    scores = torch.full((1, 40), -20.0)
    scores[0, 0] = 5.0
    second = scores.clone()
    second[0, 1:] -= 3.0
    options = {"temperature": 1.0, "weight": 1.0, "spec": PairLossSpec(topk_classes=3)}
    labels = torch.tensor([0])
    wide = pair_loss(scores.double(), second.double(), labels, **options).similarity
    narrow = pair_loss(scores, second, labels, **options).similarity
    assert narrow.double().item() == pytest.approx(wide.item(), rel=1e-4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_scores_far_from_0_keep_their_digits(implementation: str) -> None:
    """Of a weight of unit vectors, so that scores are exact; then only differences count."""
    made = torch.Generator().manual_seed(3)
    near = torch.randint(-512, 512, (2, 4, 30), generator=made) / 256.0
    loss, far = (
        linear_pair_loss(
            *(near + offset),
            torch.eye(30),
            torch.tensor([0, 7, 29, 4]),
            temperature=T,
            similarity_weight=1.0,
            spec=PairLossSpec(topk_classes=5),
            chunk_classes=8,
            implementation=implementation,
        )
        for offset in (0.0, 4096.0)
    )
    torch.testing.assert_close(far.similarity, loss.similarity, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_in_one_go(implementation: str, inplace: bool) -> None:
    case, spec = make_case(4, 20, 1.0), PairLossSpec(topk_classes=5)
    sides = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
    options = {"temperature": T, "weight": 0.5, "spec": spec, "implementation": implementation}
    loss = pair_loss(*sides, case.labels, **options)
    gradients = torch.autograd.grad(loss.total, sides)
    given_sides = case.first.clone(), case.second.clone()
    one = pair_loss_and_grad(*given_sides, case.labels, inplace=inplace, **options)
    for a, b in zip([*one.loss, *one[1:]], [*loss, *gradients], strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-13)
    for own, gradient in zip(given_sides, one[1:], strict=True):
        assert (gradient.data_ptr() == own.data_ptr()) == inplace


def test_ranks_pack_candidates_without_loss() -> None:
    made = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        parts, tops = [], []
        for rank in range(3):
            classes = torch.randint(0, 2**31 - 1, (4, 5), generator=made)
            classes[0, 3] = NO_CLASS
            parts.append(Candidates(classes, torch.randn(2, 4, 5, generator=made).to(dtype)))
            tops.append(torch.tensor([[rank, NO_CLASS]] * 4))
        told = torch.stack([packed(*one) for one in zip(parts, tops, strict=True)])
        assert told.shape == (3, 4, 17)
        found, their_tops = unpacked(told, 5)
        assert torch.equal(found.classes, torch.cat([one.classes for one in parts], 1))
        assert torch.equal(found.scores, torch.cat([one.scores for one in parts], 2))
        assert torch.equal(their_tops, torch.stack(tops))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"topk_classes": -1}, "loss.topk_classes = -1: must be a whole number >= 0"),
        ({"topk_classes": 2.0}, "loss.topk_classes = 2.0: must be a whole number"),
        (
            {"topk_classes": 3, "similarity": "mmd", "mmd_kernel": "rbf"},
            "loss.topk_classes = 3 with loss.mmd_kernel = 'rbf'",
        ),
    ],
)
def test_wrong_choices_are_named(choices: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        PairLossSpec(**choices)
    assert message in str(error.value)


def test_there_must_be_a_rest() -> None:
    case, spec = make_case(4, 20, 1.0), PairLossSpec(topk_classes=20)
    with pytest.raises(UserError, match="topk_classes = 20: must be smaller than the number of cl"):
        pair_loss(case.first, case.second, case.labels, temperature=T, weight=1.0, spec=spec)
    with pytest.raises(UserError, match="must be smaller than the number of classes, 20"):
        by_chunks(make_inputs(4, 3, 20, "linear"), spec, "linear")


def test_settings_choose_it() -> None:
    spec = PairLossSpec.from_config(LossConfig(topk_classes=9))
    assert spec.topk_classes == 9
    assert spec.grouped
    assert not PairLossSpec(topk_classes=9, similarity="none").grouped
    assert fused.choices(spec, T)[1] == fused.KINDS["none"]
