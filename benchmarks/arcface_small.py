"""The update of arcface_torch beside ours with a small network, for many steps in seconds.

    python benchmarks/arcface_small.py --peer PATH_TO_INSIGHTFACE [--ranks 2] [--steps 30]

As `arcface_parity.py`, whose cases it has, on random images and with one small network on both
sides: what is compared is the head, its margin and its sampling, clipping, schedule and update.
Weights are compared over ranks; a case takes a second.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from arcface_beside import BATCH, CLASSES
from arcface_parity import CASES, Case, config_of
from arcface_peer import Trainer, Ways, chosen, head_of
from torch import nn

from distill.data.batch import PairBatch, as_network_input
from distill.engine import Engine
from distill.engine_parts.head import HeadTrainer
from distill.heads import ClassRanges, build_sharded_head
from distill.migrate.given import Given
from distill.migrate.read import read_text
from distill.migrate.translate import migrate
from distill.models.classifier import Embedder
from distill.processes.spawn import spawn_local, spawned_rank
from distill.ranks import Ranks, from_environment, init_process_group, leave_process_group
from distill.schedules import learning_rate
from distill.step import Recipe, train_step

DIM = 128
"""Cosines of fewer dimensions are larger, and theirs shows no loss of an image above 69."""
ASKED = ",".join(name for name in CASES if name != "cosface on 2")
HEADING = (
    "case | ranks | theirs | steps | losses apart | backbone, of its way | head | after one step"
)


class Small(nn.Module):
    """A convolution, a normalisation, a slope and a matrix: (N, 3, 8, 8) to (N, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.PReLU(8), nn.Flatten(),
            nn.Linear(72, DIM), nn.BatchNorm1d(DIM),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings."""
        found: torch.Tensor = self.layers(images)
        return found


def batch_of(size: int, draw: torch.Generator) -> PairBatch:
    """Random images of random people."""
    images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=draw)
    labels = torch.randint(0, CLASSES, (size,), generator=draw)
    return PairBatch(images, None, labels, labels.clone(), labels.clone())


def distance(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Of all numbers of all ranks."""
    total = sum((a - b).detach().double().square().sum() for a, b in zip(one, other, strict=True))
    dist.all_reduce(total)
    return float(total.sqrt())  # type: ignore[union-attr]


def compared(peer: Path, case: Case, ways: Ways, ranks: Ranks, steps: int) -> list[float]:
    """Losses apart at most; backbone and head as shares of their ways; and both after one step."""
    text = config_of(case, steps)
    words = ["run.device=cpu", f"train.steps={steps}", *case.words]
    words += [f"optimizer.momentum={ways.momentum}"]
    given = Given("c.py", read_text(text, "c.py"))
    config = migrate(given, ranks=ranks.world_size, images="first", overrides=words).config
    torch.manual_seed(0)
    network = Small()
    theirs = copy.deepcopy(network)
    ranges = ClassRanges.even(CLASSES, ranks.rank, ranks.world_size)
    shard = build_sharded_head(config.head, DIM, ranges)
    head = head_of(peer, case.values["margin_list"], DIM, CLASSES, config.head.sample_rate)
    head.weight.data.copy_(shard.local.weight)
    engine = Engine.create(Embedder(network), config, ranks, shard)
    passes, recipe = config.train.accumulation, Recipe(config, steps)
    known = {"lr": case.values["lr"], "weight_decay": case.values["weight_decay"]}
    known |= {"warmup": config.optimizer.warmup_steps * passes, "total": steps * passes}
    trainer = Trainer(theirs, head, known, peer, ways)
    sides = (list(network.parameters()), list(theirs.parameters()))
    heads = ([shard.local.weight], [head.weight])
    begun = [one.detach().clone() for one in (*sides[1], head.weight)]
    draw, apart, first = torch.Generator().manual_seed(ranks.rank), 0.0, 0.0
    for step in range(steps):
        batches = [batch_of(BATCH // ranks.world_size // passes, draw) for _ in range(passes)]
        with remembered() as rows:
            report = train_step(engine, batches, recipe, step, [0.0] * 3)
        images = [(as_network_input(b.first), b.labels.clone()) for b in batches]
        with chosen(rows[0]):
            losses = trainer.step(images, learning_rate(config, step, steps) / passes)
        apart = max(apart, abs(report.scalars["loss/total"] - sum(losses) / passes))
        if step == 0:
            first = distance(sides[0], sides[1]) / distance(sides[1], begun[:-1])
    ways_gone = (distance(sides[1], begun[:-1]), distance(heads[1], begun[-1:]))
    return [apart, distance(*sides) / ways_gone[0], distance(*heads) / ways_gone[1], first]


class remembered(list[Any]):  # noqa: N801
    """A block in which the rows that a head is asked for are remembered."""

    def __enter__(self) -> remembered:
        self.take = HeadTrainer.take
        take = self.take

        def told(trainer: HeadTrainer, rows: torch.Tensor | None) -> None:
            self.append(rows)
            take(trainer, rows)

        HeadTrainer.take = told  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        HeadTrainer.take = self.take  # type: ignore[method-assign]


def rank_main(args: argparse.Namespace) -> None:
    """One of the ranks: all cases."""
    config = migrate(
        Given("c.py", read_text(config_of(CASES["cosface"], 4), "c.py")),
        ranks=1, images="first", overrides=["run.device=cpu"],
    ).config  # fmt: skip
    ranks = from_environment(config)
    torch.set_num_threads(1)
    init_process_group(config, ranks)
    for name in args.cases.split(","):
        case = CASES[name]
        for told, ways in ({"as there": Ways()} | case.ways).items():
            found = compared(args.peer, case, ways, ranks, args.steps)
            if ranks.is_first:
                cells = [name, str(ranks.world_size), told, str(args.steps)]
                print(" | ".join([*cells, *(f"{one:.1e}" for one in found)]), flush=True)
    leave_process_group()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of insightface")
    parser.add_argument("--cases", default=ASKED, help="with commas")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        with spawned_rank():
            return rank_main(args)
    print(HEADING, flush=True)
    program = [sys.executable, __file__, *sys.argv[1:], "--rank"]
    if status := spawn_local([], args.ranks, program=program):
        raise SystemExit(status)
    return None


if __name__ == "__main__":
    main()
