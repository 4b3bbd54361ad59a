"""Fixtures of the tests of checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from tensors import TensorsEngine

from distill.checkpoint import RunFacts, TrainState, save
from distill.data.batch import OrderState


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
