"""What a training step costs the host beyond the network: our trainer beside plain torch.

    python benchmarks/bench_step.py --ranks 1,2 --stages 0,1,2

Both train a network of a hundred small layers on batches of two pairs, so that little but issuing
work is left; on a GPU a host that needs longer for it than the device is the limit. Ours is the
whole loop of `distill.train` with its data, logs and watchdog. Plain is what arcface_torch does in
a step: forward, our loss, backward, clipping, SGD, the loss as a number; over ranks with its DDP.
Milliseconds are medians over steps, in one run, first plain, then ours: wall time, and processor
time of the thread that issues the work, of which the ratio is. Phases are those that the watchdog
is told; what follows an update (losses of all ranks, logs) counts as part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg
import torch
from rank_lines import numbers
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distill.config import Config
from distill.data.batch import IMAGE_SIZE, as_network_input
from distill.data.pack_writer import EncodedPair, write_pack
from distill.losses import PairLossSpec, pair_loss
from distill.models.classifier import build_classifier
from distill.models.registry import BACKBONES
from distill.processes.spawn import spawn_local, spawned_rank
from distill.processes.watchdog import Watchdog
from distill.ranks import from_environment
from distill.train import train

if TYPE_CHECKING:
    from distill.checkpoint import TrainState
    from distill.engine import Engine
    from distill.plan import Plan

PAIRS, CLASSES, WIDTH = 2, 100, 16
"""Pairs of a rank's batch, identities, and length of an embedding."""
LAYERS = 33
"""Of three modules and five parameters each."""
WARM_UP = 20
"""Steps that are not counted, of each side."""
PHASES = ("waiting for pairs", "forward", "backward", "update")
HEAD = "ranks | head | ZeRO | plain ms | ours ms | ratio | plain CPU ms | ours CPU ms | " + (
    " | ".join(f"{phase} ms" for phase in PHASES)
)


class Speck(nn.Module):
    """As many parameters as a small backbone has, and next to no arithmetic: thin layers."""

    def __init__(self, embedding_dim: int, _dropout: float) -> None:
        super().__init__()
        sizes = pairwise([3, *[embedding_dim] * LAYERS])
        layers = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.PReLU(b)) for a, b in sizes]
        self.layers = nn.Sequential(*chain(*layers))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, D)."""
        found: torch.Tensor = self.layers(images.mean((2, 3)))
        return found


class Moment(NamedTuple):
    """Wall time and processor time of this thread, in seconds."""

    wall: float
    used: float

    @classmethod
    def now(cls) -> Moment:
        """This one."""
        return cls(time.perf_counter(), time.thread_time())


def medians_ms(moments: list[Moment]) -> tuple[float, float]:
    """Median milliseconds, wall and processor time, from each to the next."""
    between = [
        [1e3 * (later - earlier) for earlier, later in zip(a, b, strict=True)]
        for a, b in pairwise(moments[WARM_UP:])
    ]
    wall, used = zip(*between, strict=True)
    return statistics.median(wall), statistics.median(used)


class Clock(Watchdog):
    """The watchdog, which remembers when each phase began."""

    begun: list[tuple[str, Moment]]

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        Clock.begun = []

    def mark(self, phase: str, step: int | None = None) -> None:
        """See `Watchdog`."""
        super().mark(phase, step)
        self.begun.append((phase, Moment.now()))


def ours_ms() -> dict[str, float]:
    """Medians of what the clock saw."""
    marks = Clock.begun[
        : 1 + max(i for i, (name, _) in enumerate(Clock.begun) if name == PHASES[0])
    ]
    spent = defaultdict(list)
    for (phase, begin), (_, end) in pairwise(marks):
        spent[phase].append(1e3 * (end.wall - begin.wall))
    wall, used = medians_ms([moment for name, moment in marks if name == PHASES[0]])
    phases = {phase: statistics.median(spent[phase][WARM_UP:]) for phase in PHASES}
    return {"ours": wall, "ours_used": used, **phases}


def plain_ms(config: Config, engine: Engine, steps: int) -> dict[str, float]:
    """Medians of the plain loop, on random images, with all identities on every rank."""
    device, world = engine.device, engine.ranks.world_size
    network = model = build_classifier(config, CLASSES).to(device)
    if world > 1:
        model = DistributedDataParallel(network, broadcast_buffers=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    size = (2 * PAIRS, 3, IMAGE_SIZE, IMAGE_SIZE)
    images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    labels = torch.arange(PAIRS, device=device)
    spec = PairLossSpec.from_config(config.loss, config.head)
    moments = []
    for _ in range(WARM_UP + steps):
        moments.append(Moment.now())
        first, second = model(as_network_input(images)).scores.chunk(2)
        loss = pair_loss(first, second, labels, temperature=3.0, weight=1.0, spec=spec)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.total.item()
    wall, used = medians_ms(moments)
    return {"plain": wall, "plain_used": used}


def rank_main(case: Path) -> None:
    """Be one rank: both loops, and on rank 0 what they took."""
    asked = json.loads(case.read_text())
    config = Config.model_validate(asked["config"])
    found: dict[str, float] = {}

    def plain_first(engine: Engine, plan: Plan, state: TrainState) -> None:
        found.update(plain_ms(config, engine, asked["steps"]))

    BACKBONES["speck"] = Speck
    sys.modules["distill.train"].Watchdog = Clock  # type: ignore[attr-defined]
    ranks = from_environment(config)
    train(config, ranks, before_steps=plain_first)
    if ranks.is_first:
        case.with_suffix(".found").write_text(json.dumps(found | ours_ms()))


def make_pack(folder: Path) -> None:
    """A pack of grey pairs."""
    grey = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 128, np.uint8)
    jpeg = simplejpeg.encode_jpeg(grey, colorsubsampling="444")
    pairs = [EncodedPair(jpeg, jpeg, i % CLASSES, 0) for i in range(4 * CLASSES)]
    names = [f"p{i:03d}" for i in range(CLASSES)]
    write_pack(folder, pairs, len(pairs), identities=names, kinds=["blur"])


def settings(root: Path, ranks: int, head: str, stage: int, args: argparse.Namespace) -> Config:
    """Those of one line."""
    return Config.model_validate(
        {
            "run": {"dir": str(root / f"{ranks}-{head}-{stage}"), "device": args.device}
            | {"threads_per_rank": 1},
            "data": {"train": str(root / "pack")},
            "model": {"name": "speck", "embedding_dim": WIDTH},
            "head": {"placement": head},
            "optimizer": {"lr": 1e-6},
            "train": {"steps": WARM_UP + args.steps, "zero_stage": stage}
            | {"global_batch_pairs": PAIRS * ranks},
        }
    )


def measured(root: Path, config: Config, ranks: int, steps: int) -> dict[str, float]:
    """What both loops took, in processes of their own."""
    case = root / "case.json"
    case.write_text(json.dumps({"config": config.model_dump(), "steps": steps}))
    program = [sys.executable, __file__, "--case", str(case)]
    status = spawn_local([], ranks, program=program)
    if status:
        raise SystemExit(status)
    found: dict[str, float] = json.loads(case.with_suffix(".found").read_text())
    return found


def row(ranks: int, head: str, stage: int, found: dict[str, float]) -> str:
    """A line of the table."""
    times = [found["plain"], found["ours"], found["ours_used"] / found["plain_used"]]
    times += [found["plain_used"], found["ours_used"], *(found[phase] for phase in PHASES)]
    return " | ".join([str(ranks), head, str(stage), *(f"{one:.2f}" for one in times)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--ranks", type=numbers, default=[1, 2], help="with commas")
    parser.add_argument("--stages", type=numbers, default=[0, 1, 2], help="ZeRO, with commas")
    parser.add_argument("--heads", default="replicated,sharded", help="with commas")
    parser.add_argument("--steps", type=int, default=200, help="steps of each side (200)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        with spawned_rank():
            return rank_main(args.case)
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pack(root / "pack")
        for ranks in args.ranks:
            for head in args.heads.split(","):
                for stage in args.stages:
                    config = settings(root, ranks, head, stage, args)
                    found = measured(root, config, ranks, args.steps)
                    print(row(ranks, head, stage, found), flush=True)
    return None


if __name__ == "__main__":
    main()
