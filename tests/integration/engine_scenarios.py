"""What the ranks do in test_engine_ranks.py; no test itself.

    python engine_scenarios.py PHASE FOLDER RANK WORLD_SIZE

Importing DeepSpeed takes seconds, so each process plays many scenarios and writes what it saw to
FOLDER/PHASE-RANK.json. Losses are written as hexadecimal floats: equal means equal to the last bit.
"""

# over 300 lines: one script that each rank runs whole, so that its processes start once

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from rank_scenarios import play_rank
from torch import nn
from torch._dynamo.utils import counters

from distill.checkpoint import (
    RunFacts,
    SaveFailed,
    TrainState,
    gather,
    latest_verified,
    load,
    save,
)
from distill.checkpoint.shard import ShardWriter
from distill.collectives import all_reduce_sum
from distill.config.tree import Config, OptimizerConfig, RunConfig, TrainConfig
from distill.data.batch import OrderState
from distill.engine import Engine
from distill.engine_parts.loss_scale import LossScale
from distill.errors import UserError
from distill.losses import PairLossSpec, margined_logits
from distill.models.classifier import build_classifier, build_for_training
from distill.ranks import Ranks

PAIRS, CLASSES, STEPS = 24, 7, 5
UNCLIPPED = 4.0
FACTS = RunFacts("run-1", {"model": {"name": "net"}}, [f"p{i}" for i in range(CLASSES)], "pack-1")


class Net(nn.Module):
    """Small, with every kind of parameter; batch norm and dropout only where asked for."""

    def __init__(self, *, noisy: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.act = nn.PReLU(8)
        self.norm = nn.BatchNorm2d(8) if noisy else nn.Identity()
        self.drop = nn.Dropout(0.2 if noisy else 0.0)
        self.fc = nn.Linear(72, 11)
        self.head = nn.Linear(11, CLASSES, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.act(self.conv(images))).flatten(1)
        return self.head(torch.tanh(self.fc(self.drop(features))))


def settings(
    stage: int = 0, accumulation: int = 1, name: str = "sgd", clip: float = 0.4, **train: Any
) -> Config:
    lr = 0.3 if name == "sgd" else 0.01
    return Config(
        run=RunConfig(device="cpu"),
        train=TrainConfig(
            zero_stage=stage, accumulation=accumulation, global_batch_pairs=PAIRS, **train
        ),
        optimizer=OptimizerConfig(name=name, lr=lr, clip_norm=clip, weight_decay=0.01),
    )


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1000 + step)
    images = 3 * torch.randn(PAIRS, 3, 8, 8, generator=draw)
    return images, torch.randint(0, CLASSES, (PAIRS,), generator=draw)


def lr_of(config: Config, step: int) -> float:
    return config.optimizer.lr * (1 - step / 10)


def make(config: Config, ranks: Ranks, *, seed: int = 0, noisy: bool = False) -> Engine:
    torch.manual_seed(seed)
    return Engine.create(Net(noisy=noisy), config, ranks)


def play(
    engine: Engine,
    config: Config,
    first: int,
    last: int,
    poisoned: int = -1,
    factor: float = 1.0,
) -> list[Any]:
    """Steps [first, last): [mean loss, gradient norm, skipped] of each, exact."""
    world, seen = engine.ranks.world_size, []
    size = PAIRS // world // config.train.accumulation
    for step in range(first, last):
        images, labels = batch(step)
        engine.set_lr(lr_of(config, step))
        total = torch.zeros((), dtype=torch.float64)
        for micro in range(config.train.accumulation):
            at = (micro * world + engine.ranks.rank) * size
            x, y = images[at : at + size], labels[at : at + size]
            if step == poisoned and engine.ranks.rank == world - 1 and micro == 0:
                x = x * float("nan")
            loss = factor * F.cross_entropy(engine.forward(x).float(), y)
            engine.backward(loss)
            assert engine.accumulating == (micro < config.train.accumulation - 1)
            info = engine.step()
            assert (info is None) == (micro < config.train.accumulation - 1)
            total += loss.detach().double() / config.train.accumulation
        mean = float(all_reduce_sum(total)) / world
        seen.append([mean.hex(), info.grad_norm.hex(), info.skipped])
    return seen


def digest(engine: Engine) -> list[str]:
    """Weights and buffers in exact form, by way of sums that any changed bit would change."""
    tensors = [*engine.weights().values(), *engine.buffers.values()]
    bits = [t.detach().double().contiguous().view(-1).view(torch.int64) for t in tensors]
    return [str(int((b * torch.arange(1, b.numel() + 1)).sum())) for b in bits]


def curves(ranks: Ranks, _: Path) -> dict[str, Any]:
    """Loss curves of every stage, accumulation and optimizer."""
    found: dict[str, Any] = {}
    for name in ("sgd", "adamw"):
        for stage in range(4):
            for accumulation in (1, 3):
                config = settings(stage, accumulation, name)
                engine = make(config, ranks)
                found[f"{name}-{stage}-{accumulation}"] = play(engine, config, 0, STEPS)
    return found


def unclipped(ranks: Ranks, _: Path) -> dict[str, Any]:
    """Gradients of norm far above 1, with clipping switched off; DeepSpeed's default clips."""
    found = {}
    for stage in range(4):
        config = settings(stage, clip=0.0)
        found[str(stage)] = play(make(config, ranks), config, 0, 3, factor=UNCLIPPED)
    return found


def repeated(ranks: Ranks, _: Path) -> dict[str, Any]:
    """The same run twice, with everything random in it."""
    runs = {}
    for stage in range(4):
        config = settings(stage, precision="bf16")
        torch.manual_seed(0)
        twice = [play(make(config, ranks, noisy=True), config, 0, STEPS) for _ in range(2)]
        runs[str(stage)] = twice
    return runs


def scaled(ranks: Ranks, _: Path) -> dict[str, Any]:
    """The loss scale of fp16, on float32 arithmetic, which the CPU can do."""
    found = {}
    original = LossScale.for_precision
    LossScale.for_precision = classmethod(lambda cls, _: cls(True, 2.0**14))
    for stage in range(4):
        config = settings(stage)
        engine = make(config, ranks)
        curve = play(engine, config, 0, STEPS, poisoned=2)
        found[str(stage)] = [curve, engine.counters()]
    LossScale.for_precision = original
    return found


def poisoned(ranks: Ranks, _: Path) -> dict[str, Any]:
    """NaN images on the last rank alone, in step 2."""
    found = {}
    for stage in range(4):
        for accumulation in (1, 3):
            config = settings(stage, accumulation, "adamw")
            engine = make(config, ranks, noisy=True)
            curve = play(engine, config, 0, 2)
            before = digest(engine)
            curve += play(engine, config, 2, 3, poisoned=2)
            after = digest(engine)
            curve += play(engine, config, 3, STEPS)
            found[f"{stage}-{accumulation}"] = [curve, before, after, digest(engine)]
    return found


def evaluated(ranks: Ranks, _: Path) -> dict[str, Any]:
    """Each rank asks the network another number of times; all must hear the same."""
    found = {}
    for stage in range(4):
        config = settings(stage)
        engine = make(config, ranks, noisy=True)
        play(engine, config, 0, 3)
        with engine.evaluating() as network:
            for _ in range(1 + 2 * ranks.rank):
                answer = network(batch(0)[0])
            modes = [network.training, any(m.training for m in network.modules())]
        found[str(stage)] = [answer.flatten().tolist(), modes, engine.module.training]
    return found


def classifiers(ranks: Ranks, _: Path) -> dict[str, Any]:
    """The real classifier with a margin, under replication and full sharding."""
    found = {}
    for stage in (0, 3):
        config = Config.model_validate(
            settings(stage).model_dump()
            | {
                "model": {"name": "tiny", "embedding_dim": 16},
                "head": {"kind": "cosine", "scale": 16.0, "margin": "arcface"},
            }
        )
        torch.manual_seed(0)
        engine = Engine.create(build_classifier(config, CLASSES), config, ranks)
        seen = []
        for step in range(3):
            draw = torch.Generator().manual_seed(step + 10 * ranks.rank)
            images = torch.randn(4, 3, 112, 112, generator=draw)
            labels = torch.randint(0, CLASSES, (4,), generator=draw)
            output = engine.forward(images)
            assert type(output).__name__ == "ClassifierOutput"
            loss = F.cross_entropy(output.logits, labels)
            spec = PairLossSpec.from_config(config.loss, config.head)
            loss = loss + F.cross_entropy(margined_logits(output.scores, labels, spec), labels)
            engine.backward(loss)
            seen.append([float(loss.detach()), engine.step().grad_norm])
        found[str(stage)] = seen
    return found


def recomputed(ranks: Ranks, _: Path) -> dict[str, Any]:
    """A real backbone with dropout whose blocks keep their activations, or make them again."""
    found = {}
    for stage in range(4):
        for precision in ("fp32", "bf16"):
            runs = [recomputing(stage, precision, how, ranks) for how in ("none", "blocks")]
            found[f"{stage}-{precision}"] = runs
    return found


def recomputing(stage: int, precision: str, recompute: str, ranks: Ranks) -> list[Any]:
    """Two steps of two micro-batches: losses, norms, and everything that is left."""
    model = {"name": "tiny", "embedding_dim": 16, "dropout": 0.3, "recompute": recompute}
    config = settings(stage, 2, precision=precision)
    config = Config.model_validate(config.model_dump() | {"model": model})
    torch.manual_seed(0)
    engine, seen = Engine.create(build_for_training(config, CLASSES, ranks)[0], config, ranks), []
    for micro in range(4):
        torch.manual_seed(micro + 10 * ranks.rank)
        images, labels = torch.randn(4, 3, 112, 112), torch.randint(0, CLASSES, (4,))
        loss = F.cross_entropy(engine.forward(images).logits.float(), labels)
        engine.backward(loss)
        info = engine.step()
        seen += [float(loss.detach()).hex(), info and info.grad_norm.hex()]
    return [*seen, *digest(engine)]


def code_generator(_ranks: Ranks, _: Path) -> bool:
    """Whether torch's is loaded by now."""
    return "torch._inductor.compile_fx" in sys.modules


def compiled(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A real backbone with dropout, operator by operator and as one graph of the same operators."""
    found = {}
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        for stage in range(3):
            found[str(stage)] = [compiling(stage, whole, ranks, folder) for whole in (False, True)]
    return found


def compiling(stage: int, whole: bool, ranks: Ranks, folder: Path) -> list[Any]:
    """Two steps, each with an evaluation of its own size after it: numbers, names, and graphs.

    What a run of the other kind goes on from is saved on the way.
    """
    model = {"name": "tiny", "embedding_dim": 16, "dropout": 0.3, "compile": whole}
    config = Config.model_validate(settings(stage).model_dump() | {"model": model})
    torch.manual_seed(0)
    engine, seen = Engine.create(build_for_training(config, CLASSES, ranks)[0], config, ranks), []
    torch._dynamo.reset()
    counters.clear()
    for step in range(2):
        torch.manual_seed(step + 10 * ranks.rank)
        images, labels = torch.randn(4, 3, 112, 112), torch.randint(0, CLASSES, (4,))
        loss = F.cross_entropy(engine.forward(images).logits, labels)
        engine.backward(loss)
        seen += [float(loss.detach()).hex(), engine.step().grad_norm.hex()]
        with engine.evaluating() as network:
            for rows in (1, 2 + step):
                seen.append(float(network(torch.ones(rows, 3, 112, 112)).logits.sum()))
        if not step:
            facts = RunFacts("run-1", config.model_dump(), FACTS.identities, FACTS.data_digest)
            place = folder / f"compiled-{stage}-{whole}"
            save(place, engine, TrainState(1), facts)
            if whole:
                load(latest_verified(folder / f"compiled-{stage}-False", ranks), engine, facts)
    graphs = counters["stats"]["unique_graphs"]
    return [[*seen, *digest(engine), sorted(engine.shapes), sorted(engine.buffers)], graphs]


RESUMED = [
    *(("sgd", stage, "fp32") for stage in range(4)),
    ("adamw", 0, "fp32"),
    ("adamw", 2, "fp32"),
    ("adamw", 1, "bf16"),
    ("adamw", 3, "bf16"),
]


def saved(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Train 3 steps, save, go on; with batch norm, dropout and moments."""
    found = {}
    gather.WINDOW_ELEMENTS = 100  # many windows, cut inside of parameters
    for name, stage, precision in RESUMED:
        config = settings(stage, 1, name, precision=precision)
        engine = make(config, ranks, noisy=True)
        play(engine, config, 0, 3)
        save(
            folder / f"{name}-{stage}-{precision}", engine, TrainState(3, OrderState(0, 72)), FACTS
        )
        found[f"{name}-{stage}-{precision}"] = [play(engine, config, 3, 6), digest(engine)]
    gather.WINDOW_ELEMENTS = 1 << 24
    return found


def resumed(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Fresh processes and other initial weights; the rest of `saved`."""
    found = {}
    for name, stage, precision in RESUMED:
        config = settings(stage, 1, name, precision=precision)
        engine = make(config, ranks, seed=99, noisy=True)
        state = load(latest_verified(folder / f"{name}-{stage}-{precision}", ranks), engine, FACTS)
        assert (state.step, state.order) == (3, OrderState(0, 72))
        found[f"{name}-{stage}-{precision}"] = [play(engine, config, 3, 6), digest(engine)]
    return found


def statistics(ranks: Ranks, folder: Path) -> list[int]:
    """Running statistics that a resume changed, on a number of ranks that is no power of two.

    Once it is made, and once a broken batch has spoilt them and they were put back.
    """
    config, target = settings(), folder / f"statistics-{ranks.world_size}"

    def fresh() -> Engine:
        return Engine.create(
            nn.Sequential(nn.Conv2d(3, 512, 1), nn.BatchNorm2d(512)), config, ranks
        )

    torch.manual_seed(7)
    engine, again, changed = fresh(), fresh(), []
    for name in ("1.running_mean", "1.running_var"):
        engine.buffers[name].uniform_(0.5, 2.0)
    save(target, engine, TrainState(1), FACTS)
    load(latest_verified(target, ranks), again, FACTS)
    for spoilt in (False, True):
        if spoilt:
            again.backward(again.forward(torch.full((2, 3, 2, 2), float("nan"))).mean())
            assert again.step().skipped
        found = zip(engine.buffers.values(), again.buffers.values(), strict=True)
        changed.append(sum(int((a != b).sum()) for a, b in found))
    return changed


def elastic_saved(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A plain network saved at step 3 under stages 1 and 3, and what would have come."""
    found = {}
    for stage in (1, 3):
        config = settings(stage, 1, "adamw")
        engine = make(config, ranks)
        play(engine, config, 0, 3)
        target = folder / f"elastic-{ranks.world_size}-{stage}"
        save(target, engine, TrainState(3), FACTS)
        found[str(stage)] = play(engine, config, 3, 6)
    return found


def elastic_loaded(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Checkpoints of one and of two ranks, of stages 1 and 3, under every stage."""
    found = {}
    for origin in sorted(folder.glob("elastic-*")):
        for stage in range(4):
            config = settings(stage, 1, "adamw")
            engine = make(config, ranks, seed=99)
            load(latest_verified(origin, ranks), engine, FACTS)
            found[f"{origin.name}->{stage}"] = play(engine, config, 3, 6)
    return found


def failing(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Rank 1's disk fills up; then it works again, and the newest is damaged on rank 1's side."""
    config = settings(2)
    engine = make(config, ranks)
    target = folder / "failing"
    save(target, engine, TrainState(1), FACTS)
    original, calls = ShardWriter.write, 0

    def full(self: ShardWriter, data: Any) -> None:
        nonlocal calls
        calls += 1
        if ranks.rank == 1 and calls > 1:
            raise OSError(28, "No space left on device")
        original(self, data)

    ShardWriter.write = full
    try:
        save(target, engine, TrainState(2), FACTS)
        error = ""
    except SaveFailed as failure:
        error = str(failure)
    ShardWriter.write = original
    left = sorted(p.name for p in target.iterdir())
    dist.barrier()  # both have looked before the next save begins
    path = save(target, engine, TrainState(3), FACTS)
    dist.barrier()
    if ranks.is_first:
        shard = path / f"shard-{ranks.world_size - 1:05d}-of-{ranks.world_size:05d}.safetensors"
        shard.write_bytes(shard.read_bytes()[:-8])
    dist.barrier()
    result = latest_verified(target, ranks)
    try:
        load(result, engine, RunFacts("run-1", FACTS.config, ["x"], "pack-1"))
        refusal = ""
    except UserError as refused:
        refusal = str(refused)
    return {"error": error, "left": left, "step": result.step, "aside": result.set_aside,
            "refusal": refusal}  # fmt: skip


PHASES = {
    "train": (
        curves,
        unclipped,
        repeated,
        scaled,
        poisoned,
        evaluated,
        classifiers,
        recomputed,
        saved,
        elastic_saved,
        failing,
        code_generator,
        compiled,
    ),
    "single": (curves, elastic_saved, elastic_loaded, code_generator),
    "resume": (resumed, elastic_loaded),
    "three": (statistics,),
}


if __name__ == "__main__":
    play_rank(PHASES)
