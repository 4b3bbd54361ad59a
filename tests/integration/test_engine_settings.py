"""Parts of the engine that need neither ranks nor DeepSpeed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from distill.config.tree import Config, OptimizerConfig, TrainConfig
from distill.engine_parts.buffers import SharedBuffers
from distill.engine_parts.loss_scale import GOOD_STEPS_BEFORE_DOUBLING, LARGEST_SCALE, LossScale
from distill.engine_parts.optimizer import build_optimizer, get_updates, moments_of, state_of
from distill.engine_parts.settings import (
    bucket_elements,
    check_precision,
    deepspeed_settings,
    micro_batch_pairs,
)
from distill.errors import UserError

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(4, 2)
    )


def test_fp16_is_refused_on_a_cpu():
    config = Config(train=TrainConfig(precision="fp16"))
    with pytest.raises(UserError, match=r"fp16.*needs a CUDA device") as caught:
        check_precision(config, CPU)
    assert "bf16" in caught.value.fix
    check_precision(config, torch.device("cuda", 0))


def test_a_batch_that_does_not_divide_is_refused():
    config = Config(train=TrainConfig(global_batch_pairs=100, accumulation=3))
    with pytest.raises(UserError, match=r"global_batch_pairs = 100: not divisible by 2 ranks"):
        micro_batch_pairs(config, 2)
    assert micro_batch_pairs(Config(train=TrainConfig(global_batch_pairs=96)), 4) == 24


@pytest.mark.parametrize("stage", range(4))
def test_deepspeed_is_told_everything_that_matters(stage):
    config = Config(
        train=TrainConfig(zero_stage=stage, accumulation=2), optimizer=OptimizerConfig(clip_norm=0)
    )
    settings = deepspeed_settings(config, elements=1000, world_size=4, device=CPU)
    assert settings["gradient_clipping"] == 0.0
    assert settings["checkpoint"] == {"tag_validation": "Fail"}
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["train_batch_size"] == 4 * 2 * settings["train_micro_batch_size_per_gpu"]
    assert settings["zero_optimization"]["reduce_bucket_size"] == 1000
    for elements, bucket in ((1, 2), (1001, 1002), (10**9, bucket_elements())):  # never odd
        settings = deepspeed_settings(config, elements=elements, world_size=4, device=CPU)
        assert settings["zero_optimization"]["allgather_bucket_size"] == bucket


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_biases_and_norms_do_not_decay(name):
    module = network()
    optimizer = build_optimizer(module, OptimizerConfig(name=name, weight_decay=0.1))
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    found = {key: decays[id(p)] for key, p in module.named_parameters()}
    assert found == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.0,
        "4.weight": 0.1, "4.bias": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_moments_made_ahead_of_the_first_step_change_nothing(name):
    config = OptimizerConfig(name=name, lr=0.1)
    ends = []
    for ahead in (False, True):
        torch.manual_seed(0)
        module = network()
        optimizer = build_optimizer(module, config)
        assert get_updates(optimizer, moments_of(config)) == 0
        if ahead:
            for p in module.parameters():
                state_of(optimizer, p, moments_of(config))
        for _ in range(3):
            optimizer.zero_grad()
            module(torch.ones(2, 3, 3, 3)).square().sum().backward()
            optimizer.step()
        ends.append([p.detach().clone() for p in module.parameters()])
        assert get_updates(optimizer, moments_of(config)) == (3 if name == "adamw" else 0)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_sgd_without_momentum_keeps_nothing():
    assert moments_of(OptimizerConfig(name="sgd", momentum=0.0)) == ()


def test_loss_scale_halves_doubles_and_stays_in_bounds():
    scale = LossScale.for_precision("fp16")
    start = scale.scale
    scale.update(skipped=True)
    assert scale.scale == start / 2
    for _ in range(GOOD_STEPS_BEFORE_DOUBLING):
        scale.update(skipped=False)
    assert (scale.scale, scale.good_steps) == (start, 0)
    scale.scale = LARGEST_SCALE
    for _ in range(GOOD_STEPS_BEFORE_DOUBLING):
        scale.update(skipped=False)
    assert scale.scale == LARGEST_SCALE
    for _ in range(60):
        scale.update(skipped=True)
    assert scale.scale == 1.0
    fixed = LossScale.for_precision("bf16")
    fixed.update(skipped=True)
    assert fixed.scale == 1.0


def test_buffers_come_back_as_they_were_shared():
    module = network()
    buffers = SharedBuffers(module, world_size=1)
    module(torch.randn(4, 3, 3, 3))
    buffers.share()
    good = {name: b.clone() for name, b in module.named_buffers()}
    module(torch.full((4, 3, 3, 3), float("nan")))
    assert module[1].running_mean.isnan().all()
    buffers.restore()
    assert all(torch.equal(b, good[name]) for name, b in module.named_buffers())
    SharedBuffers(nn.Linear(2, 2), world_size=1).share()


class Operators(TorchDispatchMode):
    """Counts what a GPU would be given to do."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def test_sharing_takes_as_many_operators_for_any_number_of_buffers(monkeypatch):
    monkeypatch.setattr("torch.distributed.all_reduce", lambda flat: None)
    found = []
    for layers in (1, 40):
        buffers = SharedBuffers(nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(layers))), 2)
        with Operators() as counted:
            buffers.share()
            buffers.restore()
        found.append(counted.names)
    assert found[0] == found[1]


def test_running_statistics_are_the_means_over_ranks(monkeypatch):
    """The other two ranks are numbers that arrive in the sum."""
    module, others = network(), [network(), network()]
    for number, one in enumerate((module, *others)):
        one(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(number)))
    floats = [b for b in module.buffers() if b.is_floating_point()]
    theirs = [[b for b in one.buffers() if b.is_floating_point()] for one in others]
    expected = [torch.stack(same).double().mean(0) for same in zip(floats, *theirs, strict=True)]

    def all_reduce(flat):
        for one in theirs:
            flat += torch.cat([b.flatten() for b in one])

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    SharedBuffers(nn.Linear(2, 2), world_size=3).share()  # which has none: nothing to add to
    buffers = SharedBuffers(module, world_size=3)
    buffers.share()
    for buffer, mean in zip(floats, expected, strict=True):
        torch.testing.assert_close(buffer.double(), mean, rtol=1e-6, atol=1e-7)
