"""The native op against the float64 reference; plain torch of the same type is the yardstick."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch

from distill.losses import PairLossSpec, fused

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import Case, make_case, needs_native, values_and_gradients

pytestmark = needs_native

SCALES = (0.1, 1.0, 10.0, 64.0)
SIMILARITIES = ("none", "kl", "ce", "mmd")
DIRECTIONS = ("forward", "reverse", "symmetric")
NAMES = ("ce_first", "ce_second", "similarity", "grad_first", "grad_second")
# Error allowed beyond that of plain torch, relative to 1 + |value|; times T^2 where scaled. To it
# comes half a unit in the last place of the largest logit: what the logits themselves leave open.
# Gradients to scores are larger than those to logits by the scale.
TOLERANCE = {
    torch.float64: 1e-14,
    torch.float32: 4e-7,
    torch.float16: 4e-7,
    torch.bfloat16: 4e-7,
}
HALF_UNIT = dict.fromkeys(TOLERANCE, 2.0**-24) | {torch.float64: 2.0**-53}
# A gradient is rounded to its type: an error of arithmetic may flip it to the next number.
ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-8}


def check(case: Case, dtype: torch.dtype, temperature: float, spec: PairLossSpec) -> None:
    truth = values_and_gradients("reference", case, temperature, spec)
    narrow = case.to(dtype)
    native = values_and_gradients("native", narrow, temperature, spec)
    plain = values_and_gradients("plain", narrow, temperature, spec)
    factor = max(1.0, spec.similarity_scale(temperature))
    largest = spec.logit_scale * max(case.first.abs().max(), case.second.abs().max()).item()
    tolerance = TOLERANCE[dtype] * factor + HALF_UNIT[dtype] * largest
    for name, true, ours, theirs in zip(NAMES, truth, native, plain, strict=True):
        size = 1.0 + true.abs()
        rounding = ROUNDING[dtype] * true.abs() if name.startswith("grad") else 0.0
        error = ((ours - true).abs() - rounding).clamp(min=0) / size
        to_scores = max(1.0, spec.logit_scale) if name.startswith("grad") else 1.0
        allowed = ((theirs - true).abs() / size).max() + tolerance * to_scores
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
    tops = torch.stack([case.first.argmax(1), case.second.argmax(1)], 1)
    assert torch.equal(terms.tops, tops)


def test_the_first_of_equal_maxima_is_the_answer() -> None:
    z = torch.zeros(3, 70000)
    z[0, [5, 69000]] = 1.0
    z[1, [66000, 66001]] = 2.0
    terms = fused.row_terms(z, z, torch.tensor([69000, 66001, 9]), 1.0, PairLossSpec())
    assert terms.tops[:, 0].tolist() == [5, 66000, 0]


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
@pytest.mark.parametrize(("angle", "cosine"), [(0.5, 0.0), (0.0, 0.35), (0.3, 0.2), (1.4, 0.9)])
def test_margins_and_their_exact_gradients(angle: float, cosine: float, dtype: torch.dtype) -> None:
    """Targets on both sides of the angle where cos(theta + m) would rise again, and at the ends."""
    spec = PairLossSpec(
        logit_scale=30.0, margin_angle_rad=angle, margin_cosine=cosine, label_smoothing=0.1
    )
    case = cosine_case(8, 90, dtype)
    own = torch.tensor([-1.0, -0.99, -0.9, -0.1, 0.5, 0.99, 1.0, 0.3], dtype=torch.float64)
    for side in (case.first, case.second):
        side.scatter_(1, case.labels.clamp(min=0)[:, None], own[:, None].to(dtype).double())
    check(case, dtype, 2.0, spec)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("scale", [20.0, 200.0])
def test_a_margin_that_moves_the_maximum_far(temperature: float, scale: float) -> None:
    """The exponentials of both terms can be shared only while their maxima are near."""
    case = cosine_case(3, 40, torch.float32)
    for side in (case.first, case.second):
        side.mul_(0.05).scatter_(1, case.labels.clamp(min=0)[:, None], 0.95)
    spec = PairLossSpec(logit_scale=scale, margin_cosine=0.8)
    check(case, torch.float32, temperature, spec)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 64.0])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_scale_inside_is_the_scale_outside(similarity: str, scale: float) -> None:
    """Against float64 logits, with gradients to the scores."""
    for dtype in TOLERANCE:
        case = cosine_case(3, 700, dtype)
        check(case, dtype, 2.5, PairLossSpec(similarity=similarity, logit_scale=scale))


def cosine_case(B: int, C: int, dtype: torch.dtype) -> Case:
    """Scores in [-1, 1] that the type holds exactly."""
    case = make_case(B, C, 1.0, ignored=True)
    return Case(*(z.tanh().to(dtype).double() for z in (case.first, case.second)), case.labels)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("scale", SCALES)
def test_by_products(scale: float, dtype: torch.dtype) -> None:
    """Entropies and p(target) at T against scipy, whatever the similarity is."""
    for similarity in SIMILARITIES:
        case = make_case(4, 1111, scale, dtype=dtype, ignored=True)
        spec = PairLossSpec(similarity=similarity)
        first, second = case.first.to(dtype), case.second.to(dtype)
        extras = fused.row_terms(first, second, case.labels, 3.0, spec).extras.double().numpy()
        for side, z in enumerate((case.first, case.second)):
            p = scipy.special.softmax(z.numpy() / 3.0, axis=1)
            target = p[np.arange(4), case.labels.clamp(min=0).numpy()]
            for row in np.flatnonzero(case.labels.numpy() >= 0):
                entropy = scipy.special.entr(p[row]).sum()
                assert extras[row, side] == pytest.approx(entropy, rel=2e-6, abs=2e-6)
                assert extras[row, 2 + side] == pytest.approx(target[row], rel=5e-6, abs=1e-9)
        assert not extras[2].any()  # the ignored pair


@pytest.mark.parametrize("instructions", ["generic", "avx2"])
def test_other_instruction_sets_agree(instructions: str) -> None:
    """The same comparison in a process that may use less than this machine has."""
    program = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]);"
        "from test_loss_native import *;"
        "name = torch.ops.pairdistill.cpu_instructions();"
        "[check(make_case(3, 777, s, dtype=d, ignored=True), d, t, PairLossSpec(similarity=k))"
        " for s in SCALES for d in TOLERANCE for k in SIMILARITIES for t in (2.5, 3.0)];"
        "[check(cosine_case(3, 777, d), d, 2.5, PairLossSpec(logit_scale=30., margin_cosine=.3))"
        " for d in TOLERANCE]; [test_by_products(10.0, d) for d in TOLERANCE]; print(name)"
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
