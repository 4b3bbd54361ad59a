"""An engine without DeepSpeed or training: just tensors, so that checkpoint tests are quick."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from distill.checkpoint import Stored, open_weights, prune, save
from distill.engine_parts.fragments import WEIGHT, Fragment
from distill.ranks import Ranks


def weights_at(path: Path) -> tuple[Stored, dict[str, torch.Tensor]]:
    """What is known of weights, and copies of them by name."""
    with ExitStack() as stack:
        stored = open_weights(path, stack)
        dtypes = {name: stored.reader.dtype(key) for name, key in stored.keys.items()}
        found = {name: torch.empty(stored.shapes[name], dtype=dtypes[name]) for name in dtypes}
        for name, tensor in found.items():
            stored.reader.copy_elements(stored.keys[name], 0, tensor.view(-1))
    return stored, found


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def keep(folder: Path, newest: Path, **wanted: Any) -> list[Path]:
    """Prune to the last one, or as ``wanted``."""
    options = {"keep_last": 1, "keep_best": 0, "best_metric": "clean/top1", **wanted}
    return prune(folder, verified=newest, **options)


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


def lines_of_a_save(action: Callable[[], object], stop_at: int | None = None) -> int:
    """Run ``action``, counting lines executed in the checkpoint package; die at ``stop_at``."""
    count = 0
    package = str(Path(save.__code__.co_filename).parent)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            count += 1
            if count == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count
