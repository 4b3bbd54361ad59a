"""What test_heads_ranks.py compares with: one process of plain torch in float64; no test itself."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import head_scenarios as scenarios
import torch
import torch.nn.functional as F

from distill.config.tree import Config
from distill.data.batch import PairBatch, as_network_input
from distill.data.keyed import keyed_rng
from distill.engine_parts.optimizer import build_optimizer, set_lr
from distill.heads import ClassRanges, build_adaface, build_head
from distill.heads.sampling import sampled
from distill.losses import PairLossSpec, RowMargins, margined_logits, pair_loss
from distill.models.classifier import PairClassifier
from distill.schedules import learning_rate


@functools.cache
def plain_torch(
    words: tuple[str, ...], head: str = "cosine", left_out: int = -1
) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step of one process without DeepSpeed or shards, float64."""
    config = scenarios.settings(*words, head=head)
    torch.manual_seed(0)
    model = PairClassifier(
        scenarios.Net(), build_head(config.head, scenarios.DIM, scenarios.CLASSES)
    ).double()
    adaface = build_adaface(config.head)
    optimizer, seen = build_optimizer(model, config.optimizer), []
    for step in range(scenarios.STEPS):
        batch = scenarios.pairs(step)
        set_lr(optimizer, learning_rate(config, step, 10))
        optimizer.zero_grad()
        output = model(images_of(config, batch))
        margins = adaface and RowMargins(*adaface(output.embeddings))
        loss = loss_of(config, output.scores, batch.labels, margins)
        loss.backward()
        clipped = model if config.optimizer.clip_head else model.backbone
        norm = torch.nn.utils.clip_grad_norm_(clipped.parameters(), config.optimizer.clip_norm)
        if step != left_out:
            optimizer.step()
        seen.append((loss.item(), norm.item()))
    return seen


def images_of(config: Config, batch: PairBatch) -> torch.Tensor:
    """What the network sees, float64."""
    both = config.train.images == "pair"
    images = torch.cat((batch.first, batch.second)) if both else batch.first
    return as_network_input(images, torch.float64)


def loss_of(
    config: Config, scores: torch.Tensor, labels: torch.Tensor, margins: RowMargins | None = None
) -> torch.Tensor:
    """The reference of a pair's loss; of first images alone torch's cross-entropy."""
    spec = PairLossSpec.from_config(config.loss, config.head)
    if config.head.margin_slope == "one":
        margins, spec = of_slope_one(spec, scores, labels)
    if config.train.images == "first":
        logits = margined_logits(scores, labels, spec, margins)
        return F.cross_entropy(logits, labels, label_smoothing=config.loss.label_smoothing)
    return pair_loss(
        *scores.chunk(2),
        labels,
        temperature=config.loss.temperature,
        weight=1.0,
        spec=spec,
        margins=margins,
        implementation="reference",
    ).total


def of_slope_one(
    spec: PairLossSpec, scores: torch.Tensor, labels: torch.Tensor
) -> tuple[RowMargins, PairLossSpec]:
    """What the margin takes off each own cosine, as a number, and a loss without margin."""
    both = labels.repeat(len(scores) // len(labels))
    own = scores.detach()[torch.arange(len(scores)), both]
    angle = torch.arccos(own) + spec.margin_angle_rad
    moved = torch.where(angle <= math.pi, angle.cos(), own - 1 + math.cos(spec.margin_angle_rad))
    taken = own - moved + spec.margin_cosine
    margins = RowMargins(torch.zeros_like(taken), taken)
    return margins, replace(spec, margin_angle_rad=0.0, margin_cosine=0.0)


def some_classes(world_size: int, head: str, *words: str) -> list[tuple[float, float]]:
    """As `plain_torch`, each step about some of 40 classes; rows beside them stand still."""
    config = scenarios.settings(*scenarios.SAMPLED, *words, head=head)
    torch.manual_seed(0)
    model = PairClassifier(
        scenarios.Net(), build_head(config.head, scenarios.DIM, scenarios.MANY)
    ).double()
    optimizer, seen = build_optimizer(model, config.optimizer), []
    for step in range(scenarios.STEPS):
        batch = scenarios.pairs(step, scenarios.MANY)
        chosen = classes_of(step, world_size, batch.labels)
        number = {c: i for i, c in enumerate(chosen)}
        labels = torch.tensor([number[y] for y in batch.labels.tolist()])
        scores = model(images_of(config, batch)).scores[:, chosen]
        optimizer.zero_grad()
        loss = loss_of(config, scores, labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        set_lr(optimizer, learning_rate(config, step, 10))
        step_but_leave(optimizer, list(model.head.parameters()), chosen)
        seen.append((loss.item(), norm.item()))
    return seen


def classes_of(step: int, world_size: int, labels: torch.Tensor) -> list[int]:
    """The classes that the ranks take together, in any order."""
    taken = []
    for rank in range(world_size):
        ranges = ClassRanges.even(scenarios.MANY, rank, world_size)
        key = keyed_rng("classes of a step", 0, step, rank)
        rows = sampled(labels, ranges, 0.3, int(key.integers(2**63))).rows
        taken += [ranges.mine.start + int(row) for row in rows]
    assert set(labels.tolist()) < set(taken) < set(range(scenarios.MANY))
    return taken


def step_but_leave(
    optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor], rows: list[int]
) -> None:
    """A step of torch's after which all but ``rows`` of the parameters and moments are put back."""

    def tensors() -> list[torch.Tensor]:
        moments = [m for p in parameters for m in optimizer.state[p].values() if m.ndim]
        return [p.detach() for p in parameters] + moments

    before = [t.clone() for t in tensors()]
    optimizer.step()
    before += [torch.zeros_like(t) for t in tensors()[len(before) :]]
    beside = [row for row in range(scenarios.MANY) if row not in rows]
    for tensor, old in zip(tensors(), before, strict=True):
        tensor[beside] = old[beside]
