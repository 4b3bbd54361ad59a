"""Blocks that are made again in backward, against the same network that keeps its activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from distill.config import load_config
from distill.errors import UserError
from distill.models import build_backbone, build_classifier
from distill.models import recompute as module
from distill.models.classifier import build_for_training
from distill.models.recompute import Unit, recompute_blocks
from distill.models.timm_backbone import TimmBackbone
from distill.ranks import Ranks

NAMES = ["tiny", "mobile", "iresnet18", "vit_small", "insight_vit_t"]


class Noisy(Unit):
    """A block that draws random numbers, as one with stochastic depth does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept: torch.Tensor = x + self.body(x) * (torch.rand(len(x), 1) < 0.5)
        return kept


class Stages(nn.Module):
    """Stands for a timm network: it makes its own stages again where it was told to."""

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()) for _ in range(3)
        )
        self.again, self.refuses = False, refuses

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        assert not self.refuses, "gradient checkpointing not supported"
        self.again = enable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            again = torch.utils.checkpoint.checkpoint
            x = again(stage, x, use_reentrant=False) if self.again else stage(x)
        return x


def trained(network: nn.Module, inputs: list[torch.Tensor], *, bf16: bool = False) -> list[Any]:
    """What steps of two passes leave behind: outputs, state, and the next random numbers."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    seen = []
    for step, x in enumerate(inputs):
        torch.manual_seed(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = network(x)
        out.float().square().mean().backward()
        seen.append(out.detach().clone())
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    return [*seen, torch.rand(3), *network.state_dict().values()]


def assert_alike(
    kept: nn.Module, again: nn.Module, shape: tuple[int, ...], *, steps: int = 2, **how: Any
) -> None:
    again.load_state_dict(kept.state_dict())  # the names are the same
    inputs = [torch.randn(shape) for _ in range(2 * steps)]
    before = [b.clone() for b in kept.buffers()]
    pairs = zip(trained(kept, inputs, **how), trained(again, inputs, **how), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    if before:
        assert not any(torch.equal(*two) for two in zip(before, kept.buffers(), strict=True))


def both(name: str) -> tuple[nn.Module, nn.Module]:
    kept, again = (build_backbone(name, embedding_dim=16, dropout=0.3).train() for _ in range(2))
    recompute_blocks(again, name)
    return kept, again


def saved_bytes(network: nn.Module, images: torch.Tensor) -> int:
    """Of what autograd keeps for backward, each storage once, the weights aside."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(images)
    for held in (*network.parameters(), *network.buffers(), out):
        kept.pop(held.untyped_storage().data_ptr(), None)
    return sum(kept.values())


@pytest.mark.parametrize(
    ("name", "bf16"),
    [*((name, False) for name in NAMES), ("tiny", True), ("insight_vit_t", True)],
)
def test_no_bit_changes(name: str, bf16: bool) -> None:
    # Two rows that are normalised are opposites: a layer behind them leaves their mean at 0.
    images = 3 if name == "insight_vit_t" else 2
    steps = 2 if name == "tiny" else 1
    assert_alike(*both(name), (images, 3, 112, 112), steps=steps, bf16=bf16)


def test_random_numbers_within_a_block_are_drawn_again() -> None:
    kept, again = (nn.Sequential(Noisy(), Noisy(), nn.Dropout(0.5)) for _ in range(2))
    recompute_blocks(again, "noisy")
    assert_alike(kept, again, (8, 6))


@pytest.mark.parametrize(("name", "share"), zip(NAMES, (0.5, 0.15, 0.2, 0.1, 0.1), strict=True))
def test_less_is_kept(name: str, share: float) -> None:
    kept, again = (saved_bytes(one, torch.randn(2, 3, 112, 112)) for one in both(name))
    assert 0 < again < share * kept


def test_evaluation_makes_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, again = both("tiny")
    again.load_state_dict(kept.state_dict())
    monkeypatch.setattr(module, "checkpoint", None)
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(*(one.eval()(images) for one in (kept, again)))
    with pytest.raises(TypeError, match="NoneType"):
        again(images)


def test_a_timm_network_has_its_own_way() -> None:
    kept, again = (TimmBackbone(Stages(), 6, 4, 0.3) for _ in range(2))
    recompute_blocks(again, "timm:stages")
    assert (kept.network.again, again.network.again) == (False, True)
    assert_alike(kept, again, (8, 6))


@pytest.mark.parametrize("network", [Stages(refuses=True), nn.Linear(6, 6)])
def test_a_network_without_blocks_is_refused(network: nn.Module) -> None:
    with pytest.raises(UserError, match=r'model.recompute = "blocks": timm:one has no blocks'):
        recompute_blocks(TimmBackbone(network, 6, 4, 0.0), "timm:one")


@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_training_is_asked_for_it_and_nothing_else(placement: str) -> None:
    words = ["model.name=tiny", "model.recompute=blocks", f"head.placement={placement}"]
    config = load_config(None, words)
    alone = Ranks(0, 1, 0, 1, torch.device("cpu"))
    trained_one, _ = build_for_training(config, 4, alone)
    for network, wanted in ((trained_one, True), (build_classifier(config, 4), False)):
        units = [one.recompute for one in network.modules() if isinstance(one, Unit)]
        assert units == [wanted] * 3
        assert any(one._forward_hooks for one in network.modules()) is wanted
