"""The op as torch sees it: schema, fake tensors, gradient, compilation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from distill.losses import PairLossSpec, fused, pair_loss

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import make_case, needs_native

pytestmark = needs_native
KINDS = ("none", "kl", "ce", "mmd")


def inputs(kind: str, *, targets: bool, dtype: torch.dtype = torch.float64, grad: bool = True):
    case = make_case(3, 6, 1.0, ignored=True).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    margined = [torch.tensor([0.3, -0.2, 0.8], dtype=wide) for _ in range(2)]
    tensors = [case.first, case.second, *(margined if targets else [])]
    for tensor in tensors:
        tensor.requires_grad_(grad)
    choices = (2.0, fused.KINDS[kind], 0.7, 0.3, 4.0, 0.1, 0)
    return case.first, case.second, case.labels, *(margined if targets else (None, None)), *choices


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, targets: bool) -> None:
    first, second, labels, t1, t2, *choices = inputs(kind, targets=targets)

    def values(*tensors):
        a, b, *margined = tensors
        given = margined or (None, None)
        return torch.ops.pairdistill.pair_loss(a, b, labels, *given, *choices)[:3]

    tensors = (first, second, t1, t2) if targets else (first, second)
    assert torch.autograd.gradcheck(values, tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("targets", [False, True])
def test_opcheck_forward(targets: bool, dtype: torch.dtype) -> None:
    args = inputs("kl", targets=targets, dtype=dtype)
    torch.library.opcheck(torch.ops.pairdistill.pair_loss.default, args)


@pytest.mark.parametrize("targets", [False, True])
def test_opcheck_backward(targets: bool) -> None:
    args = inputs("ce", targets=targets, grad=False)
    stats = torch.ops.pairdistill.pair_loss(*args)[5]
    upstream = [torch.rand(3, dtype=torch.float64) for _ in range(3)]
    torch.library.opcheck(
        torch.ops.pairdistill.pair_loss_backward.default, (*upstream, *args[:5], stats, *args[5:])
    )


def test_a_second_derivative_is_refused_with_a_reason() -> None:
    first, second, labels, *rest = inputs("kl", targets=False)
    ce = torch.ops.pairdistill.pair_loss(first, second, labels, *rest)[0].sum()
    (grad,) = torch.autograd.grad(ce, first, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative is not implemented"):
        grad.sum().backward()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_compiles_whole_and_follows_the_temperature(kernel: str) -> None:
    torch._dynamo.reset()
    case = make_case(4, 20, 2.0).to(torch.float32)
    spec = PairLossSpec(similarity="kl" if kernel == "linear" else "mmd", mmd_kernel=kernel)

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
