"""One training step: batch, one forward pass over both images, loss, backward, update.

    first  (B, 3, 112, 112) \
                             concatenated (2B, 3, 112, 112) -> network -> loss (objective/)
    second (B, 3, 112, 112) /

The ranks exchange one short vector: the losses, whose means are what gets logged, and the stop
flags. It is on its way before the update, which has the host wait for the gradient's norm, and read
after it: so a GPU is waited for once a step, and works on the update while the host goes on.

Nothing random outlives a step: torch's generator (dropout) is seeded anew from (seed, step,
micro-batch, rank), so a resumed run needs no generator's state to continue exactly.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from distill.collectives import all_reduce_sum, gather_objects
from distill.config.tree import Config
from distill.data.batch import PairBatch
from distill.data.keyed import keyed_rng
from distill.objective import BatchLoss, Objective, PairAnswers, objective_of
from distill.on_host import OnHost, to_device
from distill.processes.stop import agreed_signal
from distill.schedules import learning_rate, temperature_at, weight_at

if TYPE_CHECKING:
    from distill.engine import Engine


@dataclass(frozen=True)
class Recipe:
    """What stays the same in all steps of a run.

    Attributes:
        config: settings.
        total_steps: optimizer steps of the whole run, for the learning rate's decay.
    """

    config: Config
    total_steps: int

    @cached_property
    def objective(self) -> Objective:
        """What the steps minimise."""
        return objective_of(self.config)


class StepReport(NamedTuple):
    """What a step did, alike on all ranks (except `answers`).

    Attributes:
        scalars: what is logged, by tag; losses are means over ranks and micro-batches.
        skipped: whether no update was made, because something was not finite.
        blamed: sample ids of the micro-batches with a non-finite loss (where ranks share the head,
            with non-finite embeddings), by rank; empty where only a gradient was not finite.
        scale_fell: whether it was skipped with a loss scale (fp16) that is smaller now.
        stop: the stop signal that some rank received, if any.
        answers: of this rank's last micro-batch, where they were asked for.
    """

    scalars: dict[str, float]
    skipped: bool
    blamed: dict[int, list[int]]
    scale_fell: bool
    stop: signal.Signals | None
    answers: PairAnswers | None = None


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
        stop_flags: `distill.processes.stop.StopRequests.flags` of this rank.
        answers_of: pairs of the last micro-batch whose answers are reported, for pictures; alike
            on all ranks.
        mark: called with the name of each phase as it begins.
    """
    config = recipe.config
    engine.set_lr(learning_rate(config, step, recipe.total_steps))
    recipe.objective.begin(engine, batches, step)
    losses: list[BatchLoss] = []
    for micro, batch in enumerate(batches):
        is_last = micro == len(batches) - 1
        _seed_generators(config.run.seed, step, micro, engine)
        mark("forward")
        pictured = answers_of if is_last else 0
        loss = recipe.objective.loss(engine, batch.to(engine.device), step, micro, pictured)
        mark("backward")
        engine.backward(loss.total)
        mark("update")
        losses.append(loss._replace(total=loss.total.detach()))  # its graph is done with
        if is_last:
            sums = _over_ranks(losses, stop_flags)
        info = engine.step()
    assert info is not None, "the engine expects another number of micro-batches"

    means, flags = _means(sums, list(loss.scalars), len(losses) * engine.ranks.world_size)
    means |= {
        "schedule/temperature": temperature_at(config.loss, step),
        "schedule/weight": weight_at(config.loss, step),
        "schedule/lr": info.lr,
        "optimizer/grad_norm": info.grad_norm,
    }
    blamed = _sample_ids_of_nonfinite(losses, batches) if info.skipped else {}
    stop = agreed_signal(flags)
    return StepReport(means, info.skipped, blamed, info.scale_fell, stop, loss.answers)


def _seed_generators(seed: int, step: int, micro: int, engine: Engine) -> None:
    """As `torch.manual_seed`, whose round of all kinds of devices takes the host a millisecond."""
    number = int(keyed_rng("training step", seed, step, micro, engine.ranks.rank).integers(2**63))
    torch.default_generator.manual_seed(number)
    if engine.device.type == "cuda":
        with torch.cuda.device(engine.device):
            torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(number)


def _over_ranks(losses: Sequence[BatchLoss], stop_flags: Sequence[float]) -> OnHost:
    """Sums over micro-batches and ranks: of what is logged, then of the flags; one collective."""
    table = torch.stack(
        [torch.stack([value.double() for value in one.scalars.values()]) for one in losses]
    )
    flags = to_device(list(stop_flags), table.device)
    return OnHost(all_reduce_sum(torch.cat((table.sum(0), flags))))


def _means(sums: OnHost, tags: Sequence[str], count: int) -> tuple[dict[str, float], list[float]]:
    """Means by tag of ``count`` losses, and the sums of the stop flags."""
    values = sums.read()
    means = {tag: value / count for tag, value in zip(tags, values, strict=False)}
    return means, values[len(tags) :]


def _sample_ids_of_nonfinite(
    losses: Sequence[BatchLoss], batches: Sequence[PairBatch]
) -> dict[int, list[int]]:
    """By rank, the sample ids of micro-batches that were not finite (a collective)."""
    mine = [
        sample
        for loss, batch in zip(losses, batches, strict=True)
        if not loss.finite
        for sample in batch.sample_ids.tolist()
    ]
    return {rank: ids for rank, ids in enumerate(gather_objects(mine)) if ids}
