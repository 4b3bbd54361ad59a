"""Updates of a sharded head: as torch's on all rows, and on some rows as the formulas say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from distill.config.tree import HeadConfig, OptimizerConfig
from distill.engine_parts.head import HeadTrainer
from distill.engine_parts.joint_norm import clip_factor, joint_norm, take_norm
from distill.engine_parts.loss_scale import LossScale
from distill.engine_parts.optimizer import build_optimizer, set_lr
from distill.heads import ClassRanges, build_head, build_sharded_head

ROWS, DIM = 11, 4
SAMPLES = ([7, 0, 3], [2, 7, 9, 4], [7, 3, 2], [10, 7])
OPTIMIZERS = {
    "sgd": OptimizerConfig(name="sgd", momentum=0.9, weight_decay=0.1),
    "no momentum": OptimizerConfig(name="sgd", momentum=0.0, weight_decay=0.1),
    "adamw": OptimizerConfig(name="adamw", weight_decay=0.1),
}


def trainer(optimizer: OptimizerConfig, kind: str = "linear") -> HeadTrainer:
    torch.manual_seed(1)
    head = HeadConfig(kind=kind)
    sharded = build_sharded_head(head, DIM, ClassRanges((0, ROWS), 0))
    return HeadTrainer(sharded, optimizer, LossScale(dynamic=False))


def gradients(step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(count, DIM, generator=draw), torch.randn(count, generator=draw)


def lr_of(step: int) -> float:
    return 0.1 / (1 + step)


def one_update(found: HeadTrainer, step: int, rows: list[int] | None) -> None:
    found.set_lr(lr_of(step))
    found.take(None if rows is None else torch.tensor(rows))
    found.weight.grad, bias_gradient = gradients(step, ROWS if rows is None else len(rows))
    if found.bias is not None:
        found.bias.grad = bias_gradient
    found.update(0.5)


def state(found: HeadTrainer, moments: tuple[str, ...]) -> dict[str, torch.Tensor]:
    kinds = ("weight", *moments)
    return {f"{k} {f.name}": f.values.clone() for k in kinds for f in found.fragments(k)}


MOMENTS = {"sgd": ("momentum_buffer",), "no momentum": (), "adamw": ("exp_avg", "exp_avg_sq")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_rows_are_updated_as_torch_does(name: str) -> None:
    found = trainer(OPTIMIZERS[name])
    torch.manual_seed(1)
    plain = build_head(HeadConfig(kind="linear"), DIM, ROWS)
    optimizer = build_optimizer(plain, OPTIMIZERS[name])
    for step in range(3):
        one_update(found, step, None)
        set_lr(optimizer, lr_of(step))
        plain.weight.grad, plain.bias.grad = (0.5 * g for g in gradients(step, ROWS))
        optimizer.step()
    local = found.head.local
    torch.testing.assert_close(local.weight, plain.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(local.bias, plain.bias, rtol=1e-6, atol=1e-7)


def by_hand(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias after `SAMPLES`, in float64, each row by itself."""
    config, head = OPTIMIZERS[name], trainer(OPTIMIZERS[name]).head.local
    out = []
    for index, whole in enumerate((head.weight, head.bias)):
        w = whole.detach().double().clone()
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        decay = config.weight_decay if index == 0 else 0.0
        for step, rows in enumerate(SAMPLES):
            for row, g in zip(rows, 0.5 * gradients(step, len(rows))[index].double(), strict=True):
                if config.name == "sgd":
                    m[row] = config.momentum * m[row] + g + decay * w[row]
                    w[row] -= lr_of(step) * m[row]
                    continue
                w[row] *= 1 - lr_of(step) * decay
                m[row] = config.beta1 * m[row] + (1 - config.beta1) * g
                v[row] = config.beta2 * v[row] + (1 - config.beta2) * g * g
                first = m[row] / (1 - config.beta1 ** (step + 1))
                second = v[row] / (1 - config.beta2 ** (step + 1))
                w[row] -= lr_of(step) * first / (second.sqrt() + config.eps)
        out.append(w)
    return out[0], out[1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_sample_is_updated_row_by_row(name: str) -> None:
    found = trainer(OPTIMIZERS[name])
    for step, rows in enumerate(SAMPLES):
        one_update(found, step, rows)
    for mine, expected in zip(
        (found.head.local.weight, found.head.local.bias), by_hand(name), strict=True
    ):
        torch.testing.assert_close(mine.detach().double(), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_beside_a_sample_are_neither_read_nor_written(name: str, kind: str) -> None:
    """They are poisoned: what were read would spread, and what were written would be another."""
    clean, spoilt = trainer(OPTIMIZERS[name], kind), trainer(OPTIMIZERS[name], kind)
    used = sorted({row for rows in SAMPLES for row in rows})
    beside = [row for row in range(ROWS) if row not in used]
    for moment in ("weight", *MOMENTS[name]):
        for fragment in spoilt.fragments(moment):
            bits = fragment.values.view(ROWS, -1).view(torch.int32)
            bits[beside] = 0x7FC0_0000 + torch.arange(len(beside), dtype=torch.int32)[:, None]
    before = state(spoilt, MOMENTS[name])
    for step, rows in enumerate(SAMPLES):
        one_update(clean, step, rows)
        one_update(spoilt, step, rows)
    after, expected = state(spoilt, MOMENTS[name]), state(clean, MOMENTS[name])
    for key, values in after.items():
        rows, poison, good = (
            x.view(ROWS, -1).view(torch.int32) for x in (values, before[key], expected[key])
        )
        assert torch.equal(rows[beside], poison[beside])
        assert torch.equal(rows[used], good[used])
        assert values.view(ROWS, -1)[used].isfinite().all()


def test_a_skipped_step_leaves_nothing() -> None:
    found = trainer(OPTIMIZERS["sgd"])
    before = state(found, MOMENTS["sgd"])
    found.take(torch.tensor([1, 2]))
    found.weight.grad = torch.ones(2, DIM)
    found.drop()
    assert found.weight is found.head.local.weight
    assert found.weight.grad is None
    after = state(found, MOMENTS["sgd"])
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_norms_are_joined_and_what_is_none_stays_none() -> None:
    three = torch.tensor(3.0)
    for one, other, both in (
        (3.0, 4.0, 5.0),
        (0.375, 0.5, 0.625),
        (0.0, 0.5, 0.5),
        (0.0, 0.0, 0.0),
    ):
        assert joint_norm(torch.tensor(one), torch.tensor(other)) == both
    for broken in (float("nan"), float("inf"), -1.0):
        assert joint_norm(three, torch.tensor(broken)) == float("inf")
        assert joint_norm(torch.tensor(broken), three) == float("inf")


@pytest.mark.parametrize("beside", [None, 4.0])
@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_sees_its_norm_on_the_host(stage: int, beside: float | None) -> None:
    """It looks at it several times a step, and would wait for a GPU each time."""
    with FakeTensorMode():
        norm = torch.ones((), device="cuda")
        zero = SimpleNamespace(
            scaled_global_norm=lambda: norm, _get_norm_groups=lambda: [norm, norm]
        )
        take_norm(zero, stage, beside and (lambda: norm))
        found = zero._get_norm_groups() if stage == 3 else [zero.scaled_global_norm()]
        assert len(found) == (1 if stage < 3 else 2 if beside is None else 3)
        assert all(one.device.type == "cpu" and one.dim() == 0 for one in found)


def test_an_update_of_a_sample_reads_no_number() -> None:
    """Which would have the host wait for a GPU."""
    found = trainer(OPTIMIZERS["adamw"])
    for rows in ([1, 2], [2, 5]):
        found.take(torch.tensor(rows))
        found.weight.grad, found.bias.grad = torch.ones(2, DIM), torch.ones(2)
        with Reads() as reads:
            found.update(1.0)
        assert not reads.count


class Reads(TorchDispatchMode):
    """Counts numbers of tensors that the host asks for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_clipping_is_that_of_torch() -> None:
    gradient = torch.tensor([3.0, 4.0])
    parameter = torch.nn.Parameter(torch.zeros(2))
    for limit in (1.0, 5.0, 20.0):
        parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([parameter], limit)
        torch.testing.assert_close(gradient * clip_factor(5.0, limit), parameter.grad)
    assert clip_factor(5.0, 0.0) == 1.0
