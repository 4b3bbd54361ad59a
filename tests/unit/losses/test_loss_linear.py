"""The pair loss by chunks of classes against float64 on whole scores."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch

from distill.losses import PairLossSpec, fused, linear_scores

sys.path.insert(0, str(Path(__file__).parent))
from linear_cases import ARC, by_chunks, by_whole_scores, loss_of, make_inputs

needs_native = pytest.mark.skipif(
    "cpu" not in fused.native_devices(), reason="the native extension is not built"
)
IMPLEMENTATIONS = ["reference", pytest.param("native", marks=needs_native)]
SIMILARITIES = [("none", "forward"), ("mmd", "symmetric")]
SIMILARITIES += list(itertools.product(("kl", "ce"), ("forward", "reverse", "symmetric")))


def spec_of(head: str, **choices) -> PairLossSpec:
    return PairLossSpec(**(ARC if head == "cosine" else {}), **choices)


def agree(ours: list[torch.Tensor], true: list[torch.Tensor], rtol: float, atol: float) -> None:
    for a, b in zip(ours, true, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b.double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize(("similarity", "direction"), SIMILARITIES)
def test_float64_is_the_reference(similarity, direction, head, implementation) -> None:
    inputs = make_inputs(5, 7, 23, head)
    for stop, smoothing, reduction in (
        ("none", 0.0, "mean"),
        ("first", 0.1, "none"),
        ("second", 0.0, "sum"),
    ):
        spec = spec_of(
            head,
            similarity=similarity,
            direction=direction,
            stop_gradient=stop,
            label_smoothing=smoothing,
        )
        true = by_whole_scores(inputs, spec, head, reduction=reduction)
        ours = by_chunks(inputs, spec, head, implementation, reduction=reduction)
        agree(ours, true, 1e-12, 1e-13)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("margin", [{}, {"margin_angle_rad": 0.5}, {"margin_cosine": 0.3}])
def test_margins(margin, implementation) -> None:
    """The target of one pair is its own weight's direction, of another the opposite one."""
    inputs = make_inputs(4, 6, 11, "cosine", weighted=False)
    inputs.first[0] = 3.0 * inputs.weight[0] + 1e-3
    inputs.second[3] = -2.0 * inputs.weight[10]
    for scale in (1.0, 64.0):
        spec = PairLossSpec(logit_scale=scale, **margin)
        agree(
            by_chunks(inputs, spec, "cosine", implementation),
            by_whole_scores(inputs, spec, "cosine"),
            1e-9,
            1e-10,
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd"])
def test_float32(similarity, scale, head, implementation) -> None:
    """No worse than float32 on whole scores, up to the rounding of logits and sums."""
    inputs = make_inputs(6, 16, 301, head, scale=scale).to(torch.float32)
    spec = spec_of(head, similarity=similarity)
    true = by_whole_scores(inputs.to(torch.float64), spec, head)
    whole = by_whole_scores(inputs, spec, head)
    ours = by_chunks(inputs, spec, head, implementation, chunk_classes=64)
    for a, b, t in zip(ours, whole, true, strict=True):
        size = 1.0 + t.abs().max()
        allowed = 2.0 * (b.double() - t).abs().max() + 2e-5 * size
        assert (a.double() - t).abs().max() <= allowed


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(dtype, implementation) -> None:
    """Logits are rounded as by F.linear; cosines are not, though features and weight have 16."""
    for head, weight_type in itertools.product(("linear", "cosine"), (dtype, torch.float32)):
        inputs = make_inputs(6, 32, 200, head, scale=0.3, weighted=False).to(dtype)
        object.__setattr__(inputs, "weight", inputs.weight.to(weight_type))
        spec = spec_of(head)
        true = by_whole_scores(inputs.to(torch.float64), spec, head)
        ours = by_chunks(inputs, spec, head, implementation, chunk_classes=64)
        assert ours[0].dtype == torch.float32
        assert [x.dtype for x in ours[11:14]] == [dtype, dtype, weight_type]
        eps = torch.finfo(dtype).eps
        agree(ours[:1], true[:1], 2e-6 if head == "cosine" else eps, 0.0)
        for a, t in zip(ours[11:], true[11:], strict=True):
            assert (a.double() - t).abs().max() <= 2 * eps * t.abs().max()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_all_labels_ignored_is_zero(implementation) -> None:
    inputs = make_inputs(3, 4, 9, "linear", weighted=False)
    inputs.labels.fill_(-1)
    for found in by_chunks(inputs, PairLossSpec(), "linear", implementation):
        assert not found.any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_gradcheck_and_no_second_derivative(head, implementation) -> None:
    inputs = make_inputs(3, 4, 7, head)
    spec = spec_of(head, label_smoothing=0.1)

    def total(*leaves: torch.Tensor) -> torch.Tensor:
        return loss_of(list(leaves), inputs, spec, head, implementation).total

    leaves = tuple(inputs.leaves())
    assert torch.autograd.gradcheck(total, leaves)
    with pytest.raises(RuntimeError, match="second derivative is not implemented"):
        torch.autograd.gradgradcheck(total, leaves)


@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=3)))
def test_only_the_gradients_that_are_wanted(wanted) -> None:
    inputs = make_inputs(4, 5, 12, "linear")
    true = by_whole_scores(inputs, PairLossSpec(), "linear")[11:]
    first, second, weight, bias = inputs.leaves()
    for leaf, on in zip((first, weight, bias), wanted, strict=True):
        leaf.requires_grad_(on)
    second.requires_grad_(False)
    loss = loss_of([first, second, weight, bias], inputs, PairLossSpec(), "linear")
    assert loss.total.requires_grad == any(wanted)
    if any(wanted):
        (1.3 * loss.total).backward()
    for leaf, expected in zip((first, weight, bias), (true[0], *true[2:]), strict=True):
        assert (leaf.grad is not None) == leaf.requires_grad
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=1e-13)
    assert second.grad is None


@needs_native
def test_under_autocast_the_products_keep_the_features_type() -> None:
    inputs = make_inputs(4, 8, 30, "linear").to(torch.float32)
    plain = by_chunks(inputs, PairLossSpec(), "linear", "native")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = by_chunks(inputs, PairLossSpec(), "linear", "native")
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))


def test_weights_without_length_count_as_normalize_does() -> None:
    inputs = make_inputs(3, 4, 8, "cosine")
    inputs.weight[2] = 0.0
    inputs.weight[3] *= 1e-13
    spec = PairLossSpec(logit_scale=4.0)
    ours, true = (how(inputs, spec, "cosine") for how in (by_chunks, by_whole_scores))
    agree(ours, true, 1e-10, 1e-10)
    assert linear_scores.SMALLEST_NORM == 1e-12
