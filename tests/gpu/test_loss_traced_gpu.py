"""The operators on a GPU as torch traces them: their fakes, their gradients, `torch.compile`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from distill.losses import PairLossSpec, fused, pair_loss, registration

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "losses"))
from loss_cases import cuda, make_case

pytestmark = pytest.mark.gpu
OPS = torch.ops.pairdistill


@pytest.fixture(autouse=True)
def native() -> None:
    assert "cuda" in fused.native_devices(), "the extension was built without CUDA"


def test_opcheck_of_every_operator() -> None:
    first, second, labels = cuda(make_case(3, 40, 1.0), torch.float32)
    choices = fused.choices(PairLossSpec(similarity="mmd"), 2.0)
    total = (None, 1.0, 1.0, 1)
    values, _, _, stats = OPS.pair_loss(first, second, labels, *choices)
    state, tops = registration.empty_state(3, torch.float32, first.device)
    sums = torch.zeros(3, 2, device="cuda")
    calls = {
        "pair_loss": (first.clone().requires_grad_(), second, labels),
        "pair_loss_backward": (torch.ones_like(values), first, second, labels, stats),
        "pair_loss_and_grad": (first, second, labels, *total),
        "pair_loss_and_grad_": (first, second, labels, *total),
        "pair_loss_accumulate_": (state, tops, first, second, labels, 0),
        "pair_loss_merge": (torch.stack([state, state]), torch.stack([tops, tops])),
        "pair_loss_finish": (state, tops, labels, 40),
        "pair_loss_mmd_accumulate_": (sums, first, second, labels, 0, stats),
        "pair_loss_mmd_finish_": (stats, values, sums, labels),
        "pair_loss_gradient_": (first, second, labels, 0, torch.ones_like(values), stats, 40),
    }
    for name, arguments in calls.items():
        torch.library.opcheck(getattr(OPS, name).default, (*arguments, *choices))


def compiled_is_the_same(implementation: str, backend: str, *temperatures: float) -> None:
    torch._dynamo.reset()
    first, second, labels = cuda(make_case(4, 2000, 2.0), torch.float32)

    def step(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        options = {"temperature": temperature, "weight": 0.5, "spec": PairLossSpec()}
        return pair_loss(z1, z2, labels, implementation=implementation, **options).total

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for temperature in temperatures:
        results = []
        for run in (step, compiled):
            z1 = first.clone().requires_grad_()
            run(z1, second, temperature).backward()
            results.append(z1.grad)
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("implementation", ["native", "reference"])
def test_compiles_whole(implementation: str) -> None:
    compiled_is_the_same(implementation, "aot_eager", 2.0, 3.0, 3.5)


@pytest.mark.parametrize("implementation", ["native", "reference"])
def test_inductor_compiles_it(implementation: str) -> None:
    """Last, and once: it takes a minute, and what fails here alone may be no fault of ours."""
    compiled_is_the_same(implementation, "inductor", 3.0)
