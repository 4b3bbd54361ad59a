"""What the ranks do in test_planner_measured.py; no test itself.

    python planner_scenarios.py FOLDER RANK WORLD_SIZE

Real training steps whose tensors are counted as they are made. Each process plays every scenario of
its number of ranks, and writes what it saw to FOLDER/RANK.json.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves

from distill.config import Config, load_config
from distill.data.batch import IMAGE_SIZE, PairBatch
from distill.engine import Engine
from distill.engine_parts import settings
from distill.losses.live_memory import LiveMemory
from distill.models.classifier import build_for_training
from distill.models.iresnet import IResNet
from distill.models.registry import BACKBONES
from distill.processes.stop import STOP_SIGNALS
from distill.ranks import Ranks, leave_process_group
from distill.step import Recipe, train_step

SHARDED, FUSED, FEW = "head.placement=sharded", "loss.form=fused", "loss.kept_scores_mb=4"
TOPK = "loss.topk_classes=50"
FIRST = "train.images=first"
RECOMPUTE = "model.recompute=blocks"
CENTRES = "head.sub_centres=3"
HEAD = (20_000, ("model.name=tiny", "model.embedding_dim=128", "train.global_batch_pairs=4"))
"""The head is 10 MB, all other weights 0.8."""
BACKBONE = (1000, ("model.name=iresnet10", "model.embedding_dim=128", "train.global_batch_pairs=2"))
"""Its weights are 33 MB, and 2 images leave 74 MB for backward; blocks that are made again hold 26
an image at a time, half in bf16."""
MORE_PAIRS = ("train.global_batch_pairs=4",)
SCORES = (20_000, ("model.name=tiny", "model.embedding_dim=32", "train.global_batch_pairs=64"))
SMALL_BUCKET = 3_000_000
"""Elements of a bucket where a scenario's name has "small buckets"."""
LARGE_LAST = ("model.name=iresnet18", "model.embedding_dim=512")
"""Its largest weight, of 12.8 million elements, is needed last, and a bucket was full before it."""

# what dominates, ZeRO stage, what else: by number of ranks
CASES: dict[int, dict[str, tuple[str, ...]]] = {
    1: {"head 0": (), "head 3": (), "scores 2": ()},
    2: {
        "head 0": (),
        "head 0 adaface": ("head.margin=adaface",),
        "head 0 adamw": ("optimizer.name=adamw",),
        "head 0 accumulated": ("train.accumulation=2",),
        "head 0 fused": (FUSED,),
        "head 0 sharded sampled": (SHARDED, "head.sample_rate=0.3"),
        "head 0 sharded first": (SHARDED, FIRST),
        "head 0 sharded sampled centres": (SHARDED, "head.sample_rate=0.3", CENTRES),
        "head 1": (),
        "head 1 sharded": (SHARDED,),
        "head 2": (),
        "head 2 adamw": ("optimizer.name=adamw",),
        "head 2 sharded fused": (SHARDED, FUSED),
        "head 3": (),
        "head 3 fused": (FUSED,),
        "scores 0": (),
        "scores 0 first": (FIRST,),
        "scores 0 linear": ("head.kind=linear",),
        "scores 0 sharded": (SHARDED,),
        "scores 0 sharded adaface": (SHARDED, "head.margin=adaface"),
        "scores 0 sharded mmd": (SHARDED, "loss.similarity=mmd"),
        "scores 0 sharded smooth": (SHARDED, "loss.label_smoothing=0.1"),
        "scores 0 sharded topk": (SHARDED, TOPK),
        "scores 0 topk": (TOPK,),
        "scores 0 centres": (CENTRES,),
        "scores 0 sharded centres": (SHARDED, CENTRES),
        "scores 0 sharded first": (SHARDED, FIRST),
        "scores 0 sharded first smooth": (SHARDED, FIRST, "loss.label_smoothing=0.1"),
        "scores 1 fused": (FUSED, FEW),
        "scores 1 fused centres": (FUSED, FEW, CENTRES),
        "scores 1 fused first": (FUSED, FEW, FIRST),
        "scores 1 fused topk": (FUSED, FEW, TOPK),
        "scores 3 sharded fused": (SHARDED, FUSED, FEW),
        "scores 3 sharded fused first": (SHARDED, FUSED, FEW, FIRST),
        "backbone 0": (),
        "backbone 1 bf16": ("train.precision=bf16",),
        "backbone 1 sharded": (SHARDED, "optimizer.name=adamw"),
        "backbone 2 small buckets": (),
        "backbone 3": (),
        "backbone 0 recompute": (RECOMPUTE, *MORE_PAIRS, "train.accumulation=2"),
        "backbone 1 recompute bf16": (RECOMPUTE, *MORE_PAIRS, "train.precision=bf16"),
        "backbone 3 small buckets": LARGE_LAST,
        "backbone 3 recompute": (RECOMPUTE, *MORE_PAIRS),
        "backbone 3 recompute bf16": (RECOMPUTE, *MORE_PAIRS, "train.precision=bf16"),
    },
}


@contextmanager
def shallow_backbone() -> Iterator[None]:
    """Within it ``iresnet10`` is iresnet18 of one block a stage: half the work, as much at once."""
    BACKBONES["iresnet10"] = lambda dim, dropout: IResNet((1, 1, 1, 1), dim, dropout)
    try:
        yield
    finally:
        del BACKBONES["iresnet10"]


def scenarios(ranks: int) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Classes and settings by name."""
    kinds = {"head": HEAD, "backbone": BACKBONE, "scores": SCORES}
    found = {}
    for name, words in CASES[ranks].items():
        kind, stage, *_ = name.split()
        classes, common = kinds[kind]
        found[name] = (classes, (*common, f"train.zero_stage={stage}", *words))
    return found


class Counted(LiveMemory):
    """Live memory, and what goes through collectives: bytes of their tensors, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            tensors = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
            self.sent[func.name()] += sum(t.nbytes for t in tensors)
        return super().__torch_dispatch__(func, types, args, kwargs)


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Of their storages, each counted once."""
    storages = [t.untyped_storage() for t in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def batch(pairs: int, images_per_pair: int) -> PairBatch:
    images = [
        torch.zeros(pairs, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
        for _ in range(images_per_pair)
    ]
    first, second = (*images, None)[:2]
    numbers = torch.arange(pairs)
    return PairBatch(first, second, numbers, torch.zeros_like(numbers), numbers)


def parts_of(engine: Engine) -> dict[str, int]:
    """Bytes of weights, master weights and moments, by asking who holds them."""
    optimizers, parameters = [engine._optimizer], list(engine.module.parameters())
    if engine.head is not None:
        optimizers.append(engine.head._optimizer)
        parameters += engine.head.head.parameters()
    states = [t for one in optimizers for state in one.state.values() for t in state.values()]
    master = [held.tensor for held in engine._held] if engine.zero_stage else []
    return {
        "weights": bytes_of(parameters),
        "master": bytes_of(master),
        "optimizer": bytes_of(t for t in states if isinstance(t, torch.Tensor)),
    }


def measure(config: Config, classes: int, ranks: Ranks) -> dict[str, Any]:
    """Two steps like the second and all that follow."""
    flags = [0.0] * len(STOP_SIGNALS)
    pairs = settings.micro_batch_pairs(config, ranks.world_size)
    with Counted() as memory:
        model, head = build_for_training(config, classes, ranks)
        engine = Engine.create(model, config, ranks, head)
        each = config.train.images_per_pair
        batches = [batch(pairs, each) for _ in range(config.train.accumulation)]
        recipe = Recipe(config, 10)
        train_step(engine, batches, recipe, 0, flags)
        between = memory.live_bytes

        def peaks(step: int) -> tuple[list[list[Any]], int]:
            marks: list[tuple[str, int, int]] = []  # a phase begins: alive, and the most until then

            def mark(phase: str) -> None:
                marks.append((phase, memory.live_bytes, memory.peak_bytes))
                memory.peak_bytes = memory.live_bytes

            memory.sent.clear()
            train_step(engine, batches, recipe, step, flags, mark=mark)
            mark("end")
            phases = itertools.pairwise(marks)
            after = next(alive for name, alive, _ in marks if name == "backward")
            return [[name, most] for (name, *_), (_, _, most) in phases], after

        # On a busy machine a reduction may end late and hold its bucket: the lesser of two counts.
        (first, after), (second, _) = peaks(1), peaks(2)
        return {
            "between": between,
            "peaks": [[name, min(a, b)] for (name, a), (_, b) in zip(first, second, strict=True)],
            "after forward": after,
            "sent": memory.sent,
            "parts": parts_of(engine),
        }


def main(folder: Path, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(minutes=5),
    )
    ranks = Ranks(rank, world_size, rank, world_size, torch.device("cpu"))
    found = {}
    usual = settings._BUCKET_ELEMENTS
    for name, (classes, words) in scenarios(world_size).items():
        settings._BUCKET_ELEMENTS = SMALL_BUCKET if "small buckets" in name else usual
        config = load_config(None, ["run.device=cpu", *words])
        with shallow_backbone():
            found[name] = measure(config, classes, ranks)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    leave_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
