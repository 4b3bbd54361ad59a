"""One training step: batch, one forward pass over both images, loss, backward, update.

    first  (B, 3, 112, 112) \
                             concatenated (2B, 3, 112, 112) -> network -> scores (2B, C) -> loss
    second (B, 3, 112, 112) /

At its end the ranks exchange one short vector: the losses, whose means are what gets logged, and
the stop flags. Nothing random outlives a step: torch's generator (dropout) is seeded anew from
(seed, step, micro-batch, rank), so a resumed run needs no generator's state to continue exactly.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from distill.config.tree import Config
from distill.data.batch import PairBatch, as_network_input
from distill.data.keyed import keyed_rng
from distill.losses import IGNORED_LABEL, PairLossSpec, margined_logits, pair_loss
from distill.ranks import all_reduce_sum, gather_objects
from distill.schedules import learning_rate, temperature_at, weight_at
from distill.stop import agreed_signal

if TYPE_CHECKING:
    from distill.engine import Engine

Scalars = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """What stays the same in all steps of a run.

    Attributes:
        config: settings.
        total_steps: optimizer steps of the whole run, for the learning rate's decay.
    """

    config: Config
    total_steps: int

    @property
    def spec(self) -> PairLossSpec:
        """The static choices of the loss."""
        return PairLossSpec.from_config(self.config.loss, self.config.head)


class Answers(NamedTuple):
    """What the network says of the first P pairs of a batch.

    Attributes:
        classes: most probable class of the first and of the second images, (2, P) int64.
        probabilities: its probability, (2, P).
    """

    classes: torch.Tensor
    probabilities: torch.Tensor


class BatchLoss(NamedTuple):
    """The loss of a micro-batch.

    Attributes:
        total: float32 scalar with gradient.
        scalars: what is logged of it.
        scores: (2B, C), without gradient; (B, C) where only first images are used.
        scale: logits are the scores times it.
    """

    total: torch.Tensor
    scalars: Scalars
    scores: torch.Tensor
    scale: float


class StepReport(NamedTuple):
    """What a step did, alike on all ranks (except `answers`).

    Attributes:
        scalars: what is logged, by tag; losses are means over ranks and micro-batches.
        skipped: whether no update was made, because something was not finite.
        blamed: sample ids of the micro-batches with a non-finite loss, by rank; empty where all
            losses were finite and a gradient was not.
        stop: the stop signal that some rank received, if any.
        answers: of this rank's last micro-batch, where they were asked for.
    """

    scalars: dict[str, float]
    skipped: bool
    blamed: dict[int, list[int]]
    stop: signal.Signals | None
    answers: Answers | None = None


def train_step(
    engine: Engine,
    batches: Sequence[PairBatch],
    recipe: Recipe,
    step: int,
    stop_flags: Sequence[float],
    *,
    answers_of: int = 0,
    mark: Callable[[str], None] = lambda _phase: None,
) -> StepReport:
    """Make optimizer step ``step`` (counted from 0) from this rank's micro-batches.

    Args:
        engine: model and optimizer.
        batches: ``train.accumulation`` micro-batches of the same size.
        recipe: what stays the same.
        step: steps made before this one.
        stop_flags: `distill.stop.StopRequests.flags` of this rank.
        answers_of: pairs whose answers are reported, for pictures.
        mark: called with the name of each phase as it begins.
    """
    config = recipe.config
    engine.set_lr(learning_rate(config, step, recipe.total_steps))
    measured: list[Scalars] = []
    for micro, batch in enumerate(batches):
        _seed_generators(config.run.seed, step, micro, engine.ranks.rank)
        mark("forward")
        loss = batch_loss(engine, batch.to(engine.device), recipe, step)
        mark("backward")
        engine.backward(loss.total)
        mark("update")
        info = engine.step()
        measured.append(loss.scalars)
    assert info is not None, "the engine expects another number of micro-batches"

    means, flags = _over_ranks(measured, stop_flags, engine.ranks.world_size)
    means |= {
        "schedule/temperature": temperature_at(config.loss, step),
        "schedule/weight": weight_at(config.loss, step),
        "schedule/lr": info.lr,
        "optimizer/grad_norm": info.grad_norm,
    }
    blamed = _sample_ids_of_nonfinite(measured, batches) if info.skipped else {}
    answers = _answers(loss.scores, loss.scale, answers_of) if answers_of else None
    return StepReport(means, info.skipped, blamed, agreed_signal(flags), answers)


def batch_loss(engine: Engine, batch: PairBatch, recipe: Recipe, step: int) -> BatchLoss:
    """The loss of B pairs (on the engine's device), T and weight as in step ``step``."""
    if recipe.config.train.images == "first":
        return _first_alone(engine, batch, recipe.spec)
    images = as_network_input(torch.cat((batch.first, batch.second)))
    output = engine.forward(images)
    first, second = output.scores.chunk(2)
    loss = pair_loss(
        first,
        second,
        batch.labels,
        temperature=temperature_at(recipe.config.loss, step),
        weight=weight_at(recipe.config.loss, step),
        spec=recipe.spec,
        implementation=recipe.config.loss.implementation,
    )
    scalars = {
        "loss/total": loss.total.detach(),
        "loss/ce_first": loss.ce_first,
        "loss/ce_second": loss.ce_second,
        "loss/similarity": loss.similarity,
        "accuracy/first": loss.correct_first,
        "accuracy/second": loss.correct_second,
        "pair/agreement": loss.agreement,
        "pair/embedding_cosine": _mean_cosine(output.embeddings),
    }
    return BatchLoss(loss.total, scalars, output.scores.detach(), output.scale)


def _mean_cosine(embeddings: torch.Tensor) -> torch.Tensor:
    """Mean cosine between the two embeddings of a pair, from (2B, D)."""
    first, second = embeddings.detach().float().chunk(2)
    return F.cosine_similarity(first, second).mean()


def _first_alone(engine: Engine, batch: PairBatch, spec: PairLossSpec) -> BatchLoss:
    """The baseline: cross-entropy of the sample images, no second image."""
    output = engine.forward(as_network_input(batch.first))
    loss = F.cross_entropy(
        margined_logits(output.scores.float(), batch.labels, spec),
        batch.labels,
        ignore_index=IGNORED_LABEL,
        label_smoothing=spec.label_smoothing,
    )
    correct = (output.scores.argmax(1) == batch.labels).float().mean()
    value = loss.detach()
    scalars = {"loss/total": value, "loss/ce_first": value, "accuracy/first": correct}
    return BatchLoss(loss, scalars, output.scores.detach(), output.scale)


def _answers(scores: torch.Tensor, scale: float, pairs: int) -> Answers:
    """Answers to the first ``pairs`` pairs, from (2B, C)."""
    logits = scale * scores.view(2, -1, scores.shape[1])[:, :pairs].float()
    both = logits.softmax(2).max(2)
    return Answers(both.indices.cpu(), both.values.cpu())


def _seed_generators(seed: int, step: int, micro: int, rank: int) -> None:
    key = keyed_rng("training step", seed, step, micro, rank)
    torch.manual_seed(int(key.integers(2**63)))


def _over_ranks(
    measured: Sequence[Scalars], stop_flags: Sequence[float], world_size: int
) -> tuple[dict[str, float], list[float]]:
    """Means over micro-batches and ranks by tag, and the sums of the stop flags; one collective."""
    tags = list(measured[0])
    table = torch.stack([torch.stack([m[tag].double() for tag in tags]) for m in measured])
    flags = torch.tensor(stop_flags, dtype=torch.float64, device=table.device)
    values = all_reduce_sum(torch.cat((table.sum(0), flags))).tolist()
    count = len(measured) * world_size
    means = {tag: value / count for tag, value in zip(tags, values, strict=False)}
    return means, values[len(tags) :]


def _sample_ids_of_nonfinite(
    measured: Sequence[Mapping[str, torch.Tensor]], batches: Sequence[PairBatch]
) -> dict[int, list[int]]:
    """By rank, the sample ids of micro-batches whose loss was not finite (a collective)."""
    mine = [
        sample
        for scalars, batch in zip(measured, batches, strict=True)
        if not torch.isfinite(scalars["loss/total"])
        for sample in batch.sample_ids.tolist()
    ]
    return {rank: ids for rank, ids in enumerate(gather_objects(mine)) if ids}
