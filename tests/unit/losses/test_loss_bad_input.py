"""Every wrong argument: an error that names it, its value and the fix; and the choice of code."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pytest
import torch

from distill.config.tree import HeadConfig, LossConfig
from distill.errors import UserError
from distill.losses import (
    PairLossSpec,
    RowMargins,
    fused,
    implementation_info,
    implementation_name,
    pair_loss,
    pair_loss_and_grad,
    registration,
)
from distill.losses.checks import (
    assert_label_values,
    check_margin_values,
    check_numbers,
    check_weight_values,
)

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import needs_native

TINY, HUGE, RIGHT = math.ulp(0.0), sys.float_info.max, math.pi / 2
Z = torch.zeros(3, 5)
Y = torch.tensor([0, 4, -1])
RBF = PairLossSpec(similarity="mmd", mmd_kernel="rbf")


def call(function=pair_loss, **changes):
    arguments = {
        "first": Z,
        "second": Z,
        "labels": Y,
        "temperature": 2.0,
        "weight": 1.0,
        "spec": PairLossSpec(),
    } | changes
    first, second, labels = (arguments.pop(k) for k in ("first", "second", "labels"))
    return function(first, second, labels, **arguments)


def test_good_arguments_pass() -> None:
    assert call().total.item() == pytest.approx(2 * math.log(5))
    smallest = {"first": Z[:1, :2], "second": Z[:1, :2], "labels": Y[:1]}
    assert call(**smallest).total.item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "loss.temperature = 0.0"),
        ({"temperature": -1.0}, "loss.temperature = -1.0"),
        ({"temperature": math.nan}, "loss.temperature = nan"),
        ({"temperature": math.inf}, "loss.temperature = inf"),
        ({"temperature": torch.tensor(2.0)}, "loss.temperature is a Tensor"),
        ({"weight": -0.5}, "loss.weight = -0.5"),
        ({"weight": math.nan}, "loss.weight = nan"),
        ({"weight": "1"}, "loss.weight is a str"),
        ({"labels": torch.tensor([0, 5, 1])}, r"labels\[1\] = 5: must be in \[0, 5\)"),
        ({"labels": torch.tensor([0, 1, -2])}, r"labels\[2\] = -2"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "labels are torch.float32"),
        ({"labels": torch.tensor([0, 1])}, r"labels have shape \(2,\): must be \(3,\)"),
        ({"labels": Y[:, None]}, r"labels have shape \(3, 1\)"),
        ({"labels": Y.to("meta")}, "labels are on meta, scores on cpu"),
        ({"first": torch.zeros(3, 6)}, "differ in shape"),
        ({"first": Z.double()}, "differ in dtype"),
        ({"second": Z.to("meta")}, "differ in device"),
        ({"first": Z.long()}, "first scores are torch.int64"),
        ({"first": torch.zeros(3)}, r"first scores have shape \(3,\)"),
        ({"first": torch.zeros(3, 1), "second": torch.zeros(3, 1)}, "C >= 2"),
        ({"first": torch.zeros(0, 5), "second": torch.zeros(0, 5)}, "B >= 1"),
        ({"second": torch.zeros(5, 3).T}, "second scores have stride 3 between classes"),
        ({"sample_weights": torch.ones(3).long()}, "sample_weights are torch.int64"),
        ({"sample_weights": torch.ones(2)}, r"sample_weights have shape \(2,\): must be \(3,\)"),
        ({"sample_weights": torch.ones(3).to("meta")}, "sample_weights are on meta"),
        ({"sample_weights": torch.tensor([1, math.nan, 1])}, r"sample_weights\[1\] = nan"),
        ({"sample_weights": torch.tensor([1, 1, -0.5])}, r"sample_weights\[2\] = -0.5"),
        ({"sample_weights": torch.tensor([math.inf, 1, 1])}, r"sample_weights\[0\] = inf"),
        ({"reduction": "batchmean"}, "reduction = 'batchmean'"),
        ({"reduction": "none", "spec": RBF}, "reduction = 'none' with loss.mmd_kernel = 'rbf'"),
        ({"implementation": "cuda"}, "loss.implementation = 'cuda': unknown"),
    ],
)
def test_bad_arguments(changes, message: str) -> None:
    for function in (pair_loss, pair_loss_and_grad):
        with pytest.raises(UserError, match=message) as caught:
            call(function, **changes)
        assert caught.value.fix


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": "js"}, "loss.similarity = 'js'.*kl, ce, mmd, none"),
        ({"direction": "both"}, "loss.direction = 'both'"),
        ({"mmd_kernel": "poly"}, "loss.mmd_kernel"),
        ({"stop_gradient": "p"}, "loss.stop_gradient"),
        ({"ce": "max"}, "loss.ce"),
        ({"label_smoothing": 1.0}, "loss.label_smoothing = 1.0"),
        ({"logit_scale": 0.0}, "head.scale = 0.0"),
        ({"logit_scale": math.nan}, "head.scale = nan"),
        ({"margin_angle_rad": 1.6}, r"head.arc_margin_rad = 1.6: must be in \[0, 1.5708\)"),
        ({"margin_cosine": -0.1}, "head.cos_margin = -0.1"),
    ],
)
def test_bad_choices(changes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PairLossSpec(**changes)


def wide(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


TAKE = {
    "sample_weights": lambda x: check_weight_values(wide(1.0, x)),
    "angle": lambda x: check_margin_values(RowMargins(wide(0.0, x), wide(0.0, 0.0))),
    "cosine": lambda x: check_margin_values(RowMargins(wide(0.0, 0.0), wide(0.0, x))),
    "temperature": lambda x: check_numbers(x, 1.0),
    "weight": lambda x: check_numbers(1.0, x),
    **{
        name: lambda x, name=name: PairLossSpec(**{name: x})
        for name in ("label_smoothing", "logit_scale", "margin_angle_rad", "margin_cosine")
    },
}


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("temperature", [TINY, HUGE], [-TINY, 0.0, math.inf, math.nan]),
        ("weight", [0.0, HUGE], [-TINY, math.inf, math.nan]),
        ("label_smoothing", [0.0, math.nextafter(1, 0)], [-TINY, 1.0, math.nan]),
        ("logit_scale", [TINY, HUGE], [-TINY, 0.0, math.inf, math.nan]),
        ("margin_angle_rad", [0.0, math.nextafter(RIGHT, 0)], [-TINY, RIGHT, math.nan]),
        ("margin_cosine", [0.0, math.nextafter(1, 0)], [-TINY, 1.0, math.nan]),
        ("sample_weights", [0.0, HUGE], [-TINY, math.inf, math.nan]),
        ("angle", [s * math.nextafter(RIGHT, 0) for s in (-1, 1)], [-RIGHT, RIGHT, math.inf]),
        ("cosine", [-HUGE, HUGE, math.nan], [-math.inf, math.inf]),
    ],
)
def test_every_bound_is_where_it_is_said_to_be(field: str, inside, outside) -> None:
    for value in inside:
        TAKE[field](value)
    for value in outside:
        with pytest.raises(UserError, match="must be"):
            TAKE[field](value)


def test_spec_takes_every_static_field_of_the_settings() -> None:
    config = LossConfig(
        similarity="mmd",
        direction="reverse",
        mmd_kernel="rbf",
        scale_by_t2=False,
        stop_gradient="first",
        ce="mean",
        label_smoothing=0.2,
    )
    head = HeadConfig(margin="combined", scale=12.0, arc_margin_rad=0.2, cos_margin=0.3)
    spec = PairLossSpec.from_config(config, head)
    of_head = {"logit_scale": 12.0, "margin_angle_rad": 0.2, "margin_cosine": 0.3}
    assert vars(spec) == {k: getattr(config, k) for k in vars(spec) if k not in of_head} | of_head
    assert PairLossSpec() == PairLossSpec.from_config(LossConfig())


def test_the_debug_mode_looks_at_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = PairLossSpec(logit_scale=8.0, margin_angle_rad=0.5)
    assert call(first=2 + Z, spec=spec).total.isfinite()
    monkeypatch.setenv("PAIRDISTILL_DEBUG", "1")
    with pytest.raises(UserError, match="first scores reach 2: with a margin they must be cosines"):
        call(first=2 + Z, spec=spec)
    assert call(first=1 + Z, spec=spec).total.isfinite()
    assert call(first=2 + Z).total.isfinite(), "without a margin they are any numbers"


@pytest.mark.parametrize("label", [-2, 5, 5000])
def test_what_a_gpu_asserts_of_labels(label: int) -> None:
    """Here by tensors of the CPU, which raise at once; that a GPU is asked: fake_cuda/calls.py."""
    assert_label_values(torch.tensor([0, 4, -1]), 5)
    with pytest.raises(RuntimeError, match=r"out of range: must be in \[0, 5\), or -1"):
        assert_label_values(torch.tensor([0, label, -1]), 5)


@needs_native
def test_the_op_itself_refuses_what_it_cannot_read() -> None:
    op = torch.ops.pairdistill.pair_loss
    choices = fused.choices(PairLossSpec(), 2.0)
    with pytest.raises(RuntimeError, match=r"labels\[0\] = 9: must be in \[0, 5\)"):
        op(Z, Z, torch.tensor([9, 0, 0]), *choices)
    with pytest.raises(RuntimeError, match="differ in shape"):
        op(Z, torch.zeros(3, 6), Y, *choices)
    with pytest.raises(RuntimeError, match="contiguous in the class dimension"):
        op(Z, torch.zeros(5, 3).T, Y, *choices)
    with pytest.raises(RuntimeError, match="int64"):
        op(Z, Z, Y.int(), *choices)
    with pytest.raises(RuntimeError, match="at least 2 classes"):
        op(Z[:, :1], Z[:, :1], Y - Y, *choices)
    for at, value, name in ((0, 0.0, "temperature"), (7, -1.0, "logit_scale"), (8, 2.0, "angle")):
        wrong = (*choices[:at], value, *choices[at + 1 :])
        with pytest.raises(RuntimeError, match=name):
            op(Z, Z, Y, *wrong)


@needs_native
def test_scores_that_cannot_hold_both_gradients_are_refused() -> None:
    same, halves = torch.rand(3, 5), torch.rand(6, 5)
    with pytest.raises(RuntimeError, match="the same memory"):
        call(pair_loss_and_grad, first=same, second=same, inplace=True)
    with pytest.raises(RuntimeError, match="rows that overlap"):
        call(pair_loss_and_grad, first=same[:1].expand(3, 5), second=halves[:3], inplace=True)
    result = call(pair_loss_and_grad, first=halves[:3], second=halves[3:], inplace=True)
    assert result.grad_first.data_ptr() == halves.data_ptr()


@needs_native
def test_the_primitives_refuse_tensors_of_another_shape() -> None:
    ops, choices = torch.ops.pairdistill, fused.choices(PairLossSpec(), 2.0)
    state, tops = registration.empty_state(3, torch.float32, torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"state must be a contiguous \(3, 14\)"):
        ops.pair_loss_accumulate_(state[:, :13], tops, Z, Z, Y, 0, *choices)
    with pytest.raises(RuntimeError, match="float32"):
        ops.pair_loss_accumulate_(state.double(), tops, Z, Z, Y, 0, *choices)
    with pytest.raises(RuntimeError, match="tops must be"):
        ops.pair_loss_accumulate_(state, tops.int(), Z, Z, Y, 0, *choices)
    with pytest.raises(RuntimeError, match="class_start"):
        ops.pair_loss_accumulate_(state, tops, Z, Z, Y, -1, *choices)
    with pytest.raises(RuntimeError, match=r"labels\[1\] = 4"):
        ops.pair_loss_finish(state, tops, Y, 4, *choices)
    stats = torch.zeros(3, 12)
    with pytest.raises(RuntimeError, match="grad_values must be"):
        ops.pair_loss_gradient_(Z.clone(), Z.clone(), Y, 0, stats, stats, 5, *choices)
    with pytest.raises(RuntimeError, match="fewer than class_start"):
        ops.pair_loss_gradient_(Z.clone(), Z.clone(), Y, 3, stats[:, :3], stats, 5, *choices)


def test_an_explicit_choice_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert implementation_name("reference", "cpu") == "reference"
    with pytest.raises(UserError, match=r"the logits are on xpu|is not built"):
        implementation_name("native", "xpu")
    monkeypatch.setattr("distill.losses.choice.native_devices", lambda: ())
    assert implementation_name("auto", "cpu") == "reference"
    with pytest.raises(UserError, match="the native op is not built; run `pip install"):
        call(implementation="native")


def test_without_the_extension_auto_is_the_reference_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fused.native_devices.cache_clear()
    try:
        monkeypatch.setattr(fused, "LIBRARY", tmp_path / "absent.so")
        assert fused.native_devices() == ()
        assert "reference (plain torch" in implementation_info().summary()
        assert implementation_info().library == ""
        assert call().total.isfinite()
    finally:
        monkeypatch.undo()
        fused.native_devices.cache_clear()


@needs_native
def test_the_extension_says_what_it_is() -> None:
    info = implementation_info()
    assert "cpu" in info.native_devices
    assert info.cpu_instructions in ("generic", "avx2", "avx512")
    assert info.library.endswith("_kernels.so")
    assert "torch" in info.build
    assert implementation_name("auto", "cpu") == "native"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here: CUDA is not compiled")
def test_cuda_is_built_wherever_nvcc_is() -> None:
    info = implementation_info()
    assert "cuda" in info.native_devices
    for arch in ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "PTX"):
        assert arch in info.build
