"""The native op against the float64 reference; plain torch of the same type is the yardstick."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.losses import PairLossSpec, fused, reference

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import make_case, needs_native, values_and_gradients

pytestmark = needs_native

SCALES = (0.1, 1.0, 10.0, 64.0)
SIMILARITIES = ("none", "kl", "ce", "mmd")
DIRECTIONS = ("forward", "reverse", "symmetric")
NAMES = ("ce_first", "ce_second", "similarity", "grad_first", "grad_second")
# Error allowed beyond that of plain torch, relative to 1 + |value|; times T^2 where scaled. To it
# comes half a unit in the last place of the largest logit: what the logits themselves leave open.
TOLERANCE = {
    torch.float64: 1e-14,
    torch.float32: 4e-7,
    torch.float16: 4e-7,
    torch.bfloat16: 4e-7,
}
HALF_UNIT = dict.fromkeys(TOLERANCE, 2.0**-24) | {torch.float64: 2.0**-53}
# A gradient is rounded to its type: an error of arithmetic may flip it to the next number.
ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-8}


def check(case, dtype: torch.dtype, temperature: float, spec: PairLossSpec) -> None:
    truth = values_and_gradients("reference", case, temperature, spec)
    narrow = case.to(dtype)
    native = values_and_gradients("native", narrow, temperature, spec)
    plain = values_and_gradients("plain", narrow, temperature, spec)
    factor = max(1.0, spec.similarity_scale(temperature))
    largest = max(case.first.abs().max(), case.second.abs().max()).item()
    tolerance = TOLERANCE[dtype] * factor + HALF_UNIT[dtype] * largest
    for name, true, ours, theirs in zip(NAMES, truth, native, plain, strict=True):
        size = 1.0 + true.abs()
        rounding = ROUNDING[dtype] * true.abs() if name.startswith("grad") else 0.0
        error = ((ours - true).abs() - rounding).clamp(min=0) / size
        allowed = ((theirs - true).abs() / size).max() + tolerance
        assert error.max() <= allowed, f"{name}: {error.max():.2e} > {allowed:.2e}"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_every_similarity_direction_and_scale(
    similarity: str, direction: str, scale: float
) -> None:
    for dtype in TOLERANCE:
        for B, C in ((1, 2), (3, 37), (2, 3001)):
            case = make_case(B, C, scale, dtype=dtype, ignored=B > 1)
            spec = PairLossSpec(similarity=similarity, direction=direction)
            check(case, dtype, 3.0, spec)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("similarity", ("kl", "ce", "mmd"))
def test_p_close_to_q_and_far_from_it(similarity: str, scale: float) -> None:
    for apart in (0.0, 1e-3, 4 * scale):
        for dtype in (torch.float64, torch.float32, torch.float16):
            case = make_case(3, 501, scale, apart=apart, dtype=dtype)
            check(case, dtype, 2.5, PairLossSpec(similarity=similarity))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_temperatures_and_smoothing(temperature: float, smoothing: float) -> None:
    for scaled in (True, False):
        for similarity in ("kl", "ce", "mmd"):
            spec = PairLossSpec(
                similarity=similarity, scale_by_t2=scaled, label_smoothing=smoothing
            )
            check(make_case(4, 260, 3.0), torch.float32, temperature, spec)


@pytest.mark.parametrize("C", [2, 3, 15, 16, 17, 63, 1023, 1024, 1025, 2049, 65535, 65537, 140001])
def test_odd_sizes_and_labels_at_every_edge(C: int) -> None:
    case = make_case(4, C, 5.0)
    case.labels.copy_(torch.tensor([0, C - 1, C // 2, min(C - 1, 65536)]))
    check(case, torch.float32, 2.0, PairLossSpec())
    terms = fused.row_terms(case.first, case.second, case.labels, 2.0, PairLossSpec())
    assert torch.equal(terms.top_first, case.first.argmax(1))
    assert torch.equal(terms.top_second, case.second.argmax(1))


def test_the_first_of_equal_maxima_is_the_answer() -> None:
    z = torch.zeros(3, 70000)
    z[0, [5, 69000]] = 1.0
    z[1, [66000, 66001]] = 2.0
    terms = fused.row_terms(z, z, torch.tensor([69000, 66001, 9]), 1.0, PairLossSpec())
    assert terms.top_first.tolist() == [5, 66000, 0]


@pytest.mark.parametrize("stop", ["first", "second"])
@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd"])
def test_stop_gradient_and_upstream_gradients(stop: str, similarity: str) -> None:
    case = make_case(5, 77, 4.0, dtype=torch.float64)
    upstream = tuple(torch.rand(3, 5, dtype=torch.float64).unbind())
    spec = PairLossSpec(similarity=similarity, stop_gradient=stop, label_smoothing=0.05)
    ours = values_and_gradients("native", case, 2.0, spec, upstream)
    true = values_and_gradients("reference", case, 2.0, spec, upstream)
    for a, b in zip(ours, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_margin_targets_and_their_gradient(dtype: torch.dtype) -> None:
    case = make_case(6, 90, 8.0, dtype=dtype, ignored=True)
    results = []
    for how, kind in ((reference.row_terms, torch.float64), (fused.row_terms, dtype)):
        z = [x.to(kind).clone().requires_grad_() for x in (case.first, case.second)]
        wide = torch.float64 if kind == torch.float64 else torch.float32
        y = case.labels.clamp(min=0)[:, None]
        margined = [(x.detach().to(wide).gather(1, y)[:, 0] - 3).requires_grad_() for x in z]
        terms = how(*z, case.labels, 2.0, PairLossSpec(label_smoothing=0.1), tuple(margined))
        (terms.ce_first + 2 * terms.ce_second + terms.similarity).sum().backward()
        results.append([*terms[:3], *(x.grad for x in (*z, *margined))])
    tolerance = {torch.float64: 1e-12, torch.float32: 5e-6}.get(dtype, 2e-2)
    for true, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), true.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("margin", [20.0, 200.0])
def test_a_margin_that_moves_the_maximum_far(temperature: float, margin: float) -> None:
    """The exponentials of both terms can be shared only while their maxima are near."""
    case = make_case(3, 40, 1.0)
    for z in (case.first, case.second):
        z.scatter_(1, case.labels[:, None], 60.0)
    results = []
    for how, kind in ((reference.row_terms, torch.float64), (fused.row_terms, torch.float32)):
        z1, z2 = (x.to(kind).clone().requires_grad_() for x in (case.first, case.second))
        targets = (torch.full((3,), 60.0 - margin, dtype=kind),) * 2
        terms = how(z1, z2, case.labels, temperature, PairLossSpec(), targets)
        sum(x.sum() for x in terms[:3]).backward()
        results.append([*terms[:3], z1.grad, z2.grad])
    for true, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("instructions", ["generic", "avx2"])
def test_other_instruction_sets_agree(instructions: str) -> None:
    """The same comparison in a process that may use less than this machine has."""
    program = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]);"
        "from test_loss_native import *;"
        "name = torch.ops.pairdistill.cpu_instructions();"
        "[check(make_case(3, 777, s, dtype=d, ignored=True), d, 3.0, PairLossSpec(similarity=k))"
        " for s in SCALES for d in TOLERANCE for k in SIMILARITIES]; print(name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)],
        env={**os.environ, "PAIRDISTILL_CPU": instructions},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    if "avx2" in Path("/proc/cpuinfo").read_text() or instructions == "generic":
        assert done.stdout.strip() == instructions
