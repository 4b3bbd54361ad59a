"""An engine without DeepSpeed or training: just tensors, so that checkpoint tests are quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distill.checkpoint import RunFacts, TrainState, save
from distill.data.batch import OrderState
from distill.engine_parts.fragments import WEIGHT, Fragment
from distill.ranks import Ranks

SHAPES = {"backbone.weight": (5, 3, 2), "backbone.bias": (5,), "head.weight": (4, 5)}
MOMENTS = ("exp_avg", "exp_avg_sq")


class TensorsEngine:
    """One rank's replicated state, drawn from ``seed``."""

    def __init__(self, seed: int, shapes: dict[str, tuple[int, ...]] | None = None) -> None:
        self.ranks = Ranks(0, 1, 0, 1, torch.device("cpu"))
        self.zero_stage = 0
        self.moments = MOMENTS
        self.shapes = shapes or SHAPES
        self.replicated = True
        self.class_bounds: dict[str, tuple[int, ...]] = {}
        self.device = torch.device("cpu")
        draw = torch.Generator().manual_seed(seed)
        self.state = {
            (kind, name): torch.randn(shape, generator=draw)
            for kind in (WEIGHT, *MOMENTS)
            for name, shape in self.shapes.items()
        }
        self.buffers = {
            "bn.running_mean": torch.randn(5, generator=draw),
            "bn.num_batches_tracked": torch.tensor(seed),
        }
        self.updates = float(seed)

    def fragments(self, kind: str) -> list[Fragment]:
        return [Fragment(n, 0, t.view(-1)) for (k, n), t in self.state.items() if k == kind]

    def counters(self) -> dict[str, float]:
        return {"updates": self.updates}

    def finish_load(self, counters: dict[str, float]) -> None:
        self.updates = counters["updates"]

    def same_as(self, other: TensorsEngine) -> bool:
        bits = [(self.state[key], other.state[key]) for key in self.state]
        bits += [(self.buffers[key], other.buffers[key]) for key in self.buffers]
        return all(torch.equal(a, b) for a, b in bits) and self.updates == other.updates


@pytest.fixture(scope="session")
def engine_of() -> Callable[..., TensorsEngine]:
    return TensorsEngine


@pytest.fixture
def facts() -> RunFacts:
    config = {"model": {"name": "tiny", "dropout": 0.1}, "head": {"kind": "linear"}}
    return RunFacts("run-a", config, ["ann", "bob", "çelik", "dee"], "digest-1")


@pytest.fixture
def save_steps(tmp_path: Path, facts: RunFacts) -> Callable[..., list[Path]]:
    """Save the given steps, each with the state of its own seed and a metric by step."""

    def make(*steps: int, metrics: dict[int, float] | None = None) -> list[Path]:
        return [
            save(
                tmp_path,
                TensorsEngine(step),
                TrainState(
                    step,
                    OrderState(step, 7),
                    metrics={"clean/top1": metrics[step]} if metrics and step in metrics else {},
                ),
                facts,
            )
            for step in steps
        ]

    return make
