"""The op as torch sees it: schema, fake tensors, gradient, compilation."""

from __future__ import annotations

import functools
import math
import sys
from pathlib import Path

import pytest
import torch

from distill.losses import (
    PairLossSpec,
    RowMargins,
    fused,
    pair_loss,
    pair_loss_and_grad,
    registration,
)

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import make_case, needs_native

pytestmark = needs_native
KINDS = ("none", "kl", "ce", "mmd")


def inputs(kind: str, *, margin: bool, dtype: torch.dtype = torch.float64, grad: bool = True):
    case = make_case(3, 6, 1.0, ignored=True)
    first, second = (x.tanh().to(dtype).requires_grad_(grad) for x in (case.first, case.second))
    choices = (2.0, fused.KINDS[kind], 0.7, 0.3, 4.0, 0.1, 0, 8.0)
    return first, second, case.labels, *choices, *((0.4, 0.2) if margin else (0.0, 0.0))


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, margin: bool) -> None:
    first, second, labels, *choices = inputs(kind, margin=margin)

    def values(a, b):
        return torch.ops.pairdistill.pair_loss(a, b, labels, *choices)[0]

    assert torch.autograd.gradcheck(values, (first, second))


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_with_margins_of_each_image(kind: str) -> None:
    """Of both signs, and targets beyond both ends of the range in which the angle is added."""
    first, second, labels, *choices = inputs(kind, margin=False)
    with torch.no_grad():
        first[0, labels[0]], second[2, labels[2]] = 0.97, -0.99
    margins = RowMargins(torch.tensor([-0.4, 0.0, -0.5, 0.3, 0.5, 0.4]), torch.rand(6))
    assert first[0, labels[0]] > math.cos(0.4)
    assert second[2, labels[2]] < -math.cos(0.4)

    def values(a, b):
        table = margins.table(torch.float64)
        return torch.ops.pairdistill.pair_loss(a, b, labels, *choices, margins=table)[0]

    assert torch.autograd.gradcheck(values, (first, second))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", [0, 1, 2])
def test_gradcheck_of_the_gradient_that_comes_along(kind: str, reduction: int) -> None:
    """Numerical differences of its own total."""
    first, second, labels, *choices = inputs(kind, margin=True)
    weights = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
    op = torch.ops.pairdistill.pair_loss_and_grad

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            total, *_, ga, gb = op(a, b, labels, weights, 0.5, 0.3, reduction, *choices)
            ctx.save_for_backward(ga, gb)
            return total

        @staticmethod
        def backward(ctx, up):
            return tuple(up * g for g in ctx.saved_tensors)

    assert torch.autograd.gradcheck(Loss.apply, (first, second))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("margin", [False, True])
def test_opcheck_forward(margin: bool, dtype: torch.dtype) -> None:
    args = inputs("kl", margin=margin, dtype=dtype)
    torch.library.opcheck(torch.ops.pairdistill.pair_loss.default, args)
    table = torch.rand(3, 6, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    torch.library.opcheck(torch.ops.pairdistill.pair_loss.default, (*args, table))


def overloads() -> dict[str, tuple]:
    """Arguments of every other operator."""
    first, second, labels, *choices = inputs("mmd", margin=True, dtype=torch.float32, grad=False)
    ops = torch.ops.pairdistill
    values, _, _, stats = ops.pair_loss(first, second, labels, *choices)
    state, tops = registration.empty_state(3, torch.float32, torch.device("cpu"))
    ops.pair_loss_accumulate_(state, tops, first, second, labels, 0, *choices)
    both, weights, margins = (first, second, labels), torch.rand(3), torch.rand(3, 6)
    return {
        "pair_loss_backward": (torch.rand(3, 3), *both, stats, *choices),
        "pair_loss_and_grad": (*both, weights, 0.5, 1.0, 1, *choices, margins),
        "pair_loss_and_grad_": (*both, None, 0.5, 1.0, 0, *choices, margins),
        "pair_loss_accumulate_": (state, tops, *both, 0, *choices),
        "pair_loss_merge": (torch.stack([state] * 2), torch.stack([tops] * 2), *choices),
        "pair_loss_finish": (state, tops, labels, 6, *choices, margins),
        "pair_loss_mmd_accumulate_": (torch.zeros(3, 2), *both, 0, stats, *choices),
        "pair_loss_mmd_finish_": (stats, values, torch.rand(3, 2), labels, *choices),
        "pair_loss_gradient_": (*both, 0, torch.rand(3, 3), stats, 6, *choices),
    }


def test_every_overload_is_checked() -> None:
    names = {n for n in registration._FAKES if n != "pair_loss"}
    assert set(overloads()) == names


@pytest.mark.parametrize("name", [n for n in registration._FAKES if n != "pair_loss"])
def test_opcheck(name: str) -> None:
    torch.library.opcheck(getattr(torch.ops.pairdistill, name).default, overloads()[name])


def test_a_second_derivative_is_refused_with_a_reason() -> None:
    first, second, labels, *rest = inputs("kl", margin=False)

    def values(a, b):
        return torch.ops.pairdistill.pair_loss(a, b, labels, *rest)[0]

    ce = values(first, second)[:, 0].sum()
    (grad,) = torch.autograd.grad(ce, first, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative is not implemented"):
        grad.sum().backward()
    with pytest.raises(RuntimeError, match="second derivative is not implemented"):
        torch.autograd.gradgradcheck(values, (first, second))


def test_the_loss_that_comes_with_a_gradient_has_none_of_its_own() -> None:
    first, second, labels, *rest = inputs("kl", margin=False)
    total = torch.ops.pairdistill.pair_loss_and_grad(
        first, second, labels, None, 1.0, 1.0, 1, *rest
    )[0]
    with pytest.raises(RuntimeError, match="Call pair_loss"):
        total.backward()


@pytest.mark.parametrize("choices", [{}, {"mmd_kernel": "rbf"}, {"topk_classes": 5}])
def test_compiles_whole_anew_for_each_temperature(choices: dict) -> None:
    torch._dynamo.reset()
    case = make_case(4, 20, 2.0).to(torch.float32)
    spec = PairLossSpec(similarity="mmd" if "mmd_kernel" in choices else "kl", **choices)

    def step(first, second, temperature: float):
        loss = pair_loss(first, second, case.labels, temperature=temperature, weight=0.5, spec=spec)
        return loss.total, loss.agreement

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for temperature in (2.0, 3.0, 3.5, 4.25):
        results = []
        for run in (step, compiled):
            first = case.first.clone().requires_grad_()
            total, agreement = run(first, case.second, temperature)
            total.backward()
            results.append((total.detach(), agreement, first.grad))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)


def test_compiled_plain_torch_follows_both_numbers_and_the_operator_the_weight() -> None:
    """As docs/library.md says: a number that an operator takes is a constant to torch.compile."""
    case = make_case(4, 20, 2.0).to(torch.float32)
    graphs: list[str] = []

    def step(implementation, temperature: float, weight: float):
        options = {"temperature": temperature, "weight": weight, "spec": PairLossSpec()}
        sides = case.first, case.second, case.labels
        return pair_loss(*sides, implementation=implementation, **options).total

    def counted(implementation: str):
        def compiler(graph, inputs):
            graphs.append(implementation)
            return graph.forward

        torch._dynamo.reset()
        compiled = torch.compile(step, fullgraph=True, backend=compiler)
        return functools.partial(compiled, implementation)

    ramps = [(2 + i / 4, 1 + i / 8) for i in range(12)]
    for implementation, temperature in (("reference", None), ("native", 2.0)):
        compiled = counted(implementation)
        for T, weight in ramps:
            numbers = temperature or T, weight
            torch.testing.assert_close(compiled(*numbers), step(implementation, *numbers))
    # The first graph of each takes the numbers for constants.
    assert graphs == ["reference"] * 2 + ["native"] * 2


@pytest.mark.parametrize("inplace", [False, True])
def test_loss_and_gradient_compile_whole(inplace: bool) -> None:
    torch._dynamo.reset()
    case = make_case(4, 20, 1.0).to(torch.float32)
    spec = PairLossSpec(logit_scale=4.0)
    angle, cosine = torch.linspace(-0.4, 0.4, 8), torch.linspace(0.0, 0.8, 8)

    def step(first, second, weights):
        loss, *grads = pair_loss_and_grad(
            first,
            second,
            case.labels,
            temperature=2.5,
            weight=0.5,
            spec=spec,
            sample_weights=weights,
            margins=RowMargins(angle, cosine),
            inplace=inplace,
        )
        return *loss, *grads

    weights = torch.rand(4)
    results = [
        run(case.first.tanh(), case.second.tanh(), weights)
        for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager"))
    ]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_half_logits_under_autocast_and_amp_types() -> None:
    case = make_case(4, 20, 2.0, dtype=torch.bfloat16)
    first = case.first.to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pair_loss(
            first,
            case.second.to(torch.bfloat16),
            case.labels,
            temperature=2.0,
            weight=1.0,
            spec=PairLossSpec(),
        )
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert first.grad.dtype == torch.bfloat16


def test_no_gradient_is_computed_where_none_is_asked_for() -> None:
    case = make_case(2, 5, 1.0).to(torch.float32)
    with torch.no_grad():
        loss = pair_loss(
            case.first, case.second, case.labels, temperature=2.0, weight=1.0, spec=PairLossSpec()
        )
    assert not loss.total.requires_grad
