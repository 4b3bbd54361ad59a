"""What the ranks do in test_heads_ranks.py; no test itself.

    python head_scenarios.py PHASE FOLDER RANK WORLD_SIZE

As engine_scenarios.py: each process plays many scenarios and writes what it saw to
FOLDER/PHASE-RANK.json; floats in hexadecimal.
"""

# over 300 lines: one script that each rank runs whole, so that its processes start once

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from rank_scenarios import play_rank
from torch import nn

from distill.checkpoint import RunFacts, TrainState, gather, latest_verified, load, save, start_from
from distill.config import load_config
from distill.config.tree import Config
from distill.data.batch import PairBatch
from distill.engine import Engine
from distill.engine_parts.loss_scale import LossScale
from distill.errors import UserError
from distill.heads import ClassRanges, build_adaface, build_head, build_sharded_head
from distill.models.classifier import Embedder, PairClassifier
from distill.ranks import Ranks
from distill.step import Recipe, train_step

PAIRS, CLASSES, DIM, STEPS = 36, 7, 6, 4
FEW_STEPS = 3
"""The third loss is that of weights which two updates made, the second of them with moments."""
UNCLIPPED = ("optimizer.clip_head=false", "optimizer.clip_norm=0.3")
MANY = 40
"""Classes where a step is about some of them; 7 of them are in the batches."""
SAMPLED = [
    *(f"head.{word}" for word in ("placement=sharded", "sample_rate=0.3")),
    "loss.form=fused",
]
FORMS = {
    "replicated-fused": ["head.placement=replicated", "loss.form=fused"],
    "sharded-plain": ["head.placement=sharded", "loss.form=plain"],
    "sharded-fused": ["head.placement=sharded", "loss.form=fused", "loss.kept_scores_mb=0"],
}
HEADS = {
    "cosine": [
        "head.kind=cosine", "head.scale=8", "head.margin=combined", "head.arc_margin_rad=0.2",
        "head.cos_margin=0.1", "optimizer.name=sgd", "optimizer.lr=0.3", "optimizer.clip_norm=1.5",
    ],
    "linear": [
        "head.kind=linear", "optimizer.name=adamw", "optimizer.lr=0.01", "optimizer.clip_norm=0.6",
    ],
}  # fmt: skip
SIMILARITIES = {
    "kl forward": ["loss.direction=forward"],
    "kl reverse": ["loss.direction=reverse", "loss.stop_gradient=first"],
    "ce symmetric": ["loss.similarity=ce"],
    "ce forward": ["loss.similarity=ce", "loss.direction=forward", "loss.ce=mean"],
    "mmd": ["loss.similarity=mmd", "loss.scale_by_t2=false"],
    "none": ["loss.similarity=none", "loss.label_smoothing=0.1"],
    "few classes": ["loss.topk_classes=3"],
    "adaface": ["head.margin=adaface", "head.adaface_decay=0.5"],
    "slope": ["head.margin_slope=one", "head.arc_margin_rad=0.5"],
    "slope sub-centres": ["head.margin_slope=one", "head.sub_centres=3"],
    "sub-centres": ["head.sub_centres=3"],
    "sub-centres mmd": ["head.sub_centres=2", "loss.similarity=mmd"],
}
"""And what else the loss alone decides."""
FIRST = {
    "cosine": [],
    "linear": ["loss.label_smoothing=0.1"],
    "cosine smooth": ["loss.label_smoothing=0.1", "head.margin=arcface"],
    "cosine adaface": [
        "head.margin=adaface", "head.adaface_decay=0.5", "loss.topk_classes=50",
        "train.accumulation=1",  # each micro-batch counts by itself
    ],
    "cosine slope": ["head.margin_slope=one", "head.margin=arcface", "head.arc_margin_rad=0.5"],
    "cosine sub-centres": ["head.sub_centres=3", "head.margin=arcface"],
    "cosine rbf": ["loss.similarity=mmd", "loss.mmd_kernel=rbf", "loss.ce=mean"],
}  # fmt: skip
"""Without pairs: the head, and what else; settings of the similarity change nothing."""
FIRST_KEPT = ("cosine", "linear", "cosine adaface", "cosine sub-centres")
"""Those whose checkpoints hold something else: by optimizer, statistics, vectors a class."""


class Net(nn.Module):
    """A small backbone with a convolution, vectors and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.act = nn.PReLU(8)
        self.fc = nn.Linear(72, DIM)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.conv(images)).flatten(1))


def settings(*words: str, head: str = "cosine") -> Config:
    common = ["run.device=cpu", f"train.global_batch_pairs={PAIRS}", "optimizer.weight_decay=0.02",
              "loss.temperature=2", "loss.implementation=reference"]  # fmt: skip
    return load_config(None, [*common, *HEADS[head], *words])


def pairs(step: int, classes: int = CLASSES) -> PairBatch:
    """The global batch of a step, of 7 people."""
    draw = torch.Generator().manual_seed(1000 + step)
    images = torch.randint(0, 256, (2, PAIRS, 3, 8, 8), dtype=torch.uint8, generator=draw)
    labels = torch.randint(0, CLASSES, (PAIRS,), generator=draw) * (classes // CLASSES)
    return PairBatch(*images, labels, torch.zeros_like(labels), torch.arange(PAIRS))


def share_of(batch: PairBatch, micro: int, accumulation: int, ranks: Ranks) -> PairBatch:
    size = PAIRS // (ranks.world_size * accumulation)
    at = (micro * ranks.world_size + ranks.rank) * size
    return PairBatch(*(field[at : at + size] for field in vars(batch).values()))


def make(config: Config, ranks: Ranks, *, seed: int = 0, classes: int = CLASSES) -> Engine:
    torch.manual_seed(seed)
    backbone = Net()
    if config.head.placement == "replicated":
        head = build_head(config.head, DIM, classes)
        network = PairClassifier(backbone, head, build_adaface(config.head))
        return Engine.create(network, config, ranks)
    ranges = ClassRanges.even(classes, ranks.rank, ranks.world_size)
    sharded = build_sharded_head(config.head, DIM, ranges)
    network = Embedder(backbone, build_adaface(config.head))
    return Engine.create(network, config, ranks, sharded)


def play(
    engine: Engine,
    config: Config,
    first: int = 0,
    last: int = STEPS,
    poisoned: int = -1,
    classes: int = CLASSES,
) -> list[Any]:
    """Steps [first, last): [total loss, gradient norm, skipped, blamed] of each."""
    recipe, seen, ranks = Recipe(config, 10), [], engine.ranks
    for step in range(first, last):
        count = config.train.accumulation
        whole = pairs(step, classes)
        batches = [share_of(whole, micro, count, ranks) for micro in range(count)]
        if step == poisoned and ranks.rank == ranks.world_size - 1:
            poison_next_input(engine)
        report = train_step(engine, batches, recipe, step, [0.0] * 3)
        total, norm = report.scalars["loss/total"], report.scalars["optimizer/grad_norm"]
        seen.append([total.hex(), norm.hex(), report.skipped, report.blamed])
    return seen


def poison_next_input(engine: Engine) -> None:
    """NaN images, once."""
    conv = engine.module.backbone.conv

    def spoil(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        hook.remove()
        return inputs[0] * float("nan")

    hook = conv.register_forward_pre_hook(spoil)


def digest(engine: Engine) -> list[str]:
    """Weights and moments that this rank holds, exact."""
    tensors = [f.values for k in ("weight", *engine.moments) for f in engine.fragments(k)]
    bits = [t.detach().contiguous().view(torch.int32).long() for t in tensors]
    return [str(int((b * torch.arange(1, 2 * b.numel() + 1, 2)).sum())) for b in bits]


def curves(ranks: Ranks, _: Path) -> dict[str, Any]:
    """Placement and form, stage, accumulation, head: as many as tell something of these ranks.

    All on two. On others the head is sharded, stages are two, and of these four each three are
    combined in every way.
    """
    found = {}
    everything = itertools.product(FORMS.items(), range(4), (1, 3), HEADS)
    for (form, words), stage, accumulation, head in everything:
        if ranks.world_size != 2:
            if form == "replicated-fused" or (stage + ranks.world_size) % 2:
                continue
            odd = (form == "sharded-fused", stage > 1, accumulation > 1, head == "linear")
            if sum(odd) % 2:
                continue
        config = settings(
            *words, f"train.zero_stage={stage}", f"train.accumulation={accumulation}", head=head
        )
        key = f"{form} {stage} {accumulation} {head}"
        found[key] = play(make(config, ranks), config, 0, FEW_STEPS)
    return found


def similarities(ranks: Ranks, _: Path) -> dict[str, Any]:
    """Every similarity, fused, on both placements."""
    found = {}
    for form in ("replicated-fused", "sharded-fused"):
        for name, words in SIMILARITIES.items():
            config = settings(*FORMS[form], *words)
            found[f"{form} {name}"] = play(make(config, ranks), config, 0, FEW_STEPS)
    return found


def first_alone(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Without pairs: every form, and every stage and accumulation with one of them.

    What is replicated meets other ranks in sums alone, for which three of them are enough.
    """
    found = {}
    for number, (name, words) in enumerate(FIRST.items()):
        for place, (form, where) in enumerate(FORMS.items()):
            if ranks.world_size > 3 and form == "replicated-fused":
                continue
            stage, accumulation = (number + place) % 4, (1, 3)[(number + place) % 2]
            config = settings(
                "train.images=first",
                f"train.zero_stage={stage}",
                f"train.accumulation={accumulation}",
                *(*where, *words),
                head=name.split()[0],
            )
            engine = make(config, ranks)
            curve = play(engine, config, 0, 2)
            if ranks.world_size == 2 and name in FIRST_KEPT and form != "sharded-plain":
                save(folder / f"first {form} {name}", engine, TrainState(2), facts_of(config))
            found[f"{form} {name}"] = curve + play(engine, config, 2, FEW_STEPS)
    return found


def first_loaded(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """The rest of `first_alone`, with other initial weights, on other ranks and placements."""
    found = {}
    origins = ("sharded-fused", "replicated-fused")
    for name, origin, form in itertools.product(FIRST_KEPT, origins, FORMS):
        words = (*FORMS[form], *FIRST[name])
        config = settings("train.images=first", *words, head=name.split()[0])
        engine = make(config, ranks, seed=99)
        checkpoint = latest_verified(folder / f"first {origin} {name}", ranks)
        state = load(checkpoint, engine, facts_of(config))
        found[f"{name}: {origin} -> {form}"] = play(engine, config, state.step)
    return found


def first_rounded(ranks: Ranks, _: Path) -> dict[str, Any]:
    """Without pairs in bf16, twice the same run."""
    found = {}
    for form, head in itertools.product(FORMS, HEADS):
        words = ("train.images=first", "train.precision=bf16")
        config = settings(*FORMS[form], *words, head=head)
        found[f"{form} {head}"] = [
            play(make(config, ranks), config, 0, FEW_STEPS) for _ in range(2)
        ]
    return found


def first_sampled(ranks: Ranks, _: Path) -> dict[str, Any]:
    """Without pairs, some of 40 classes in each step."""
    found = {}
    for head, words in (*((head, ()) for head in HEADS), ("cosine", ("head.sub_centres=3",))):
        common = (*SAMPLED, "train.images=first", "train.accumulation=3")
        config = settings(*common, *words, head=head)
        curve = play(make(config, ranks, classes=MANY), config, classes=MANY)
        found[" ".join((head, *words))] = curve
    return found


def rounded(ranks: Ranks, _: Path) -> dict[str, Any]:
    """bf16 arithmetic, and twice the same run."""
    found = {}
    for form in FORMS:
        for head in HEADS:
            config = settings(*FORMS[form], "train.precision=bf16", head=head)
            found[f"{form} {head}"] = [
                play(make(config, ranks), config, 0, FEW_STEPS) for _ in range(2)
            ]
    return found


def poisoned(ranks: Ranks, _: Path) -> dict[str, Any]:
    """NaN images on the last rank in step 1; and a gradient of the head that is not finite."""
    found = {}
    for stage in range(4):
        config = settings(
            *FORMS["sharded-fused"], f"train.zero_stage={stage}",
            f"optimizer.clip_head={str(stage < 2).lower()}", head="linear",
        )  # fmt: skip
        engine = make(config, ranks)
        curve, before = play(engine, config, 0, 1), digest(engine)
        curve += play(engine, config, 1, 2, poisoned=1)
        after = digest(engine)
        weight = engine.head.head.local.weight
        if ranks.is_first:
            hook = weight.register_hook(lambda g: torch.full_like(g, float("inf")))
        curve += play(engine, config, 2, 3)
        if ranks.is_first:
            hook.remove()
        overflowed = digest(engine)
        curve += play(engine, config, 3, 4)
        found[str(stage)] = [curve, before, after, overflowed, digest(engine)]
    return found


def scaled(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """The loss scale of fp16, on float32 arithmetic, which the CPU can do; and resumed with it."""
    found = {}
    original = LossScale.for_precision
    words = FORMS["sharded-fused"]
    unscaled = make(settings(*words), ranks)
    LossScale.for_precision = classmethod(lambda cls, _: cls(True, 2.0**14))
    for stage in (0, 2, 3):
        config = settings(*words, f"train.zero_stage={stage}")
        engine = make(config, ranks)
        found[str(stage)] = [play(engine, config, poisoned=2), engine.counters()]
    for precision, saved in (("fp32", unscaled), ("bf16", unscaled), ("fp16", engine)):
        facts = facts_of(settings(*words, f"train.precision={precision}"))
        save(folder / f"scaled {precision}", saved, TrainState(2), facts)
        again = make(config, ranks)
        load(latest_verified(folder / f"scaled {precision}", ranks), again, facts)
        found[f"resumed {precision}"] = again.counters()
    LossScale.for_precision = original
    return found


def sampled(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Some of 40 classes in each step; a checkpoint in the middle; and a sample that is all."""
    found = {}
    for head in HEADS:
        for accumulation in (1, 3):
            config = settings(*SAMPLED, f"train.accumulation={accumulation}", head=head)
            engine = make(config, ranks, classes=MANY)
            target = folder / f"sampled {ranks.world_size} {head} {accumulation}"
            curve = play(engine, config, 0, 2, classes=MANY)
            save(target, engine, TrainState(2), facts_of(config, "x" * MANY))
            curve += play(engine, config, 2, classes=MANY)
            found[f"{head} {accumulation}"] = curve
            again = make(config, ranks, seed=99, classes=MANY)
            load(latest_verified(target, ranks), again, facts_of(config, "x" * MANY))
            resumed = play(again, config, 2, classes=MANY)
            found[f"{head} {accumulation} resumed"] = [resumed, digest(engine) == digest(again)]
        everyone = settings(*SAMPLED, "head.sample_rate=0.99", head=head)
        found[f"{head} all"] = play(make(everyone, ranks), everyone)
    return found


def unclipped(ranks: Ranks, _: Path) -> dict[str, Any]:
    """The backbone's gradient clipped by its own norm, the head's not at all."""
    found = {}
    for stage in range(4):
        words = (f"train.zero_stage={stage}", *UNCLIPPED)
        config = settings(*FORMS["sharded-plain"], *words)
        found[str(stage)] = play(make(config, ranks), config, 0, FEW_STEPS)
    return found


def started(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A fresh run from the weights of `saved`, with some of its people and others."""
    found = {}
    for form, stage in (("sharded-fused", 1), ("sharded-plain", 0), ("replicated-fused", 3)):
        for origin in ("sharded-fused", "replicated-fused"):
            config = settings(*FORMS[form], f"train.zero_stage={stage}", head="linear")
            engine = make(config, ranks, seed=5)
            start = start_from(folder / f"linear {origin}", engine, list("gxcaybz"))
            assert (start.kept, start.new, start.dropped) == (4, 3, 3)
            found[f"{origin} -> {form}"] = play(engine, config)
    return found


def facts_of(config: Config, names: str = "abcdefg") -> RunFacts:
    return RunFacts("run-1", config.model_dump(mode="json"), list(names), "pack-1")


def saved(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Two steps, a checkpoint, and what came after."""
    found = {}
    gather.WINDOW_ELEMENTS = 100  # many windows, cut inside of parameters
    for head in HEADS:
        for form, stage in (("sharded-fused", 1), ("replicated-fused", 3)):
            config = settings(*FORMS[form], f"train.zero_stage={stage}", head=head)
            engine = make(config, ranks)
            play(engine, config, 0, 2)
            save(folder / f"{head} {form}", engine, TrainState(2), facts_of(config))
            found[f"{head} {form}"] = play(engine, config, 2)
    return found


def loaded(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """The rest of `saved`, with other initial weights, on other ranks, placements and stages."""
    found = {}
    for head in HEADS:
        for origin in ("sharded-fused", "replicated-fused"):
            checkpoint = latest_verified(folder / f"{head} {origin}", ranks)
            for form, stage in (
                ("sharded-fused", 1),
                ("sharded-plain", 3),
                ("replicated-fused", 0),
                ("replicated-fused", 3),
            ):
                config = settings(*FORMS[form], f"train.zero_stage={stage}", head=head)
                engine = make(config, ranks, seed=99)
                state = load(checkpoint, engine, facts_of(config))
                found[f"{head} {origin} -> {form} {stage}"] = play(engine, config, state.step)
    try:
        load(checkpoint, engine, facts_of(config, "abdcefg"))
    except UserError as error:
        found["refusal"] = str(error)
    return found


FIRST_ALONE = (first_alone, first_loaded, first_rounded, first_sampled)
PHASES = {
    "one": (curves, unclipped, loaded, started, *FIRST_ALONE),
    "two": (curves, rounded, poisoned, scaled, saved, loaded, started, sampled, *FIRST_ALONE),
    "three": (curves, unclipped, similarities, loaded, sampled, *FIRST_ALONE),
    "four": (curves, first_alone),
}


if __name__ == "__main__":
    play_rank(PHASES)
