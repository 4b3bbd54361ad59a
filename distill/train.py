"""A training run, from its settings to its weights: `train` and `_work` tell it in order.

Whatever happens to a run, the same command goes on with it: all that the next step depends on is
in a checkpoint (weights, moments, running statistics, place in the order of samples), or is a
function of the step (schedules, dropout, augmentations).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from signal import Signals
from typing import TYPE_CHECKING, NamedTuple

from distill.beginning import begin_or_resume
from distill.checkpoint import check_space
from distill.collectives import gather_objects, together
from distill.console import say
from distill.data.copying import on_device
from distill.engine import Engine
from distill.errors import TrainingStopped
from distill.job import (
    Job,
    memory_hints,
    open_loader,
    process_group,
    seed_everything,
    sole_job,
    steps_if_complete,
)
from distill.measure import StoppedInEvaluation
from distill.milestones import ended, evaluate_now, evaluation_due, finish, save_due, save_now
from distill.models.classifier import build_for_training
from distill.monitor import Monitor
from distill.monitor.pictures import captioned, pair_grid
from distill.monitor.usage import Pace, memory
from distill.plan import make_plan
from distill.processes.stop import StopRequests
from distill.processes.watchdog import Watchdog
from distill.ranks import set_threads
from distill.step import Recipe, StepReport, train_step
from distill.watch import nonfinite_remedies, nonfinite_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.checkpoint import TrainState
    from distill.config import Config
    from distill.data.batch import PairBatch
    from distill.data.loader import PairLoader
    from distill.plan import Plan
    from distill.ranks import Ranks

PAIRS_PICTURED = 8


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        step: optimizer steps made, over all starts of the run.
        stopped_by: the signal that ended it early, its state saved; None where it is complete.
    """

    step: int
    stopped_by: Signals | None = None

    @property
    def exit_status(self) -> int:
        """0, or 128 + the signal."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by


def train(
    config: Config,
    ranks: Ranks,
    *,
    stops: StopRequests | None = None,
    before_steps: Callable[[Engine, Plan, TrainState], None] | None = None,
) -> Outcome:
    """Train until done or stopped, from where the run folder stands; all ranks must call it.

    Args:
        config: settings.
        ranks: this process among the others.
        stops: stop signals, where they are listened for already; new ones by default.
        before_steps: called on every rank when all is ready for the first step; what it makes sure
            of should include that there is room for checkpoints.

    Raises:
        UserError: settings, packs or checkpoints that do not fit, or a run folder in use; the
            run folder is as it was then.
        TrainingStopped: the loss was not finite too often in a row.
        StoppedEarly: one of ``stops`` came to some rank before all had met.
    """
    set_threads(config, ranks)
    with process_group(config, ranks, stops):
        with together(), memory_hints(ranks.device, "reading the packs"):
            plan = make_plan(config, ranks)
        seed_everything(config.run.seed)
        building = f"building the network and the head of {len(plan.classes)} classes"
        with memory_hints(ranks.device, building):
            model, head = build_for_training(config, len(plan.classes), ranks)
        listening = StopRequests() if stops is None else nullcontext(stops)
        with sole_job(plan, ranks), listening as stops, _watchdog(config, plan, ranks) as dog:
            if (steps := steps_if_complete(plan, config)) is not None:
                _say_complete(config, plan, ranks, steps)
                return Outcome(steps)
            with memory_hints(ranks.device, "making the optimizer"):
                engine = Engine.create(model, config, ranks, head)
                facts, state, saved, steps = begin_or_resume(config, plan, engine)
                plan = replace(plan, total_steps=steps)
                if before_steps is None:
                    check_space(plan.run.checkpoints, engine, config.checkpoint, plan.total_steps)
                else:
                    before_steps(engine, plan, state)
            with Monitor(
                plan.run,
                config,
                resumed_step=state.step,
                total_steps=plan.total_steps,
                active=ranks.is_first,
            ) as monitor:
                job = Job(config, plan, engine, facts, monitor, stops, dog, (state.step, saved))
                with open_loader(job, state) as pairs, memory_hints(ranks.device):
                    try:
                        return _work(job, state, pairs)
                    except StoppedInEvaluation as stopped:
                        return _stop(job, stopped.state, stopped.by)


def _say_complete(config: Config, plan: Plan, ranks: Ranks, steps: int) -> None:
    """Nothing is left to do, and what to change for more."""
    if ranks.is_first:
        length = "steps" if config.train.steps else "epochs"
        say(
            f"{plan.run.root}: already complete, {steps} steps; to go on raise train.{length},"
            " for other settings choose another run.dir"
        )


def _watchdog(config: Config, plan: Plan, ranks: Ranks) -> Watchdog:
    seconds = 60 * config.train.hang_timeout_min
    return Watchdog(plan.run.ranks, ranks.rank, ranks.world_size, seconds)


def _work(job: Job, state: TrainState, pairs: PairLoader) -> Outcome:
    """Step by step to the end, with evaluations and checkpoints at the boundaries."""
    pace = Pace(job.config.train.global_batch_pairs * job.config.train.images_per_pair)
    recipe = Recipe(job.config, job.plan.total_steps)
    stream = on_device(pairs, job.ranks.device)
    while state.step < job.plan.total_steps:
        if evaluation_due(job, state):
            state = evaluate_now(job, state)
            pace.restart()
        if save_due(job, state):
            save_now(job, state)
            pace.restart()

        job.watchdog.mark("waiting for pairs", state.step)
        waited = -pairs.wait_seconds
        taken = list(islice(stream, job.config.train.accumulation))
        waited += pairs.wait_seconds
        batches, place = [batch for batch, _ in taken], taken[-1][1]
        report = train_step(
            job.engine,
            batches,
            recipe,
            state.step,
            job.stops.flags,
            answers_of=PAIRS_PICTURED if _picture_due(job, state) else 0,
            mark=job.watchdog.mark,
        )
        state = replace(_counted(state, report), order=place, metrics={})
        pace.step(waited)
        _tell(job, state, report, batches, pace)
        _judge(job, state, report, batches)
        if report.stop is not None:
            return _stop(job, state, report.stop)
    if state.skipped_in_a_row:
        raise _not_finite(job, state, f"step {state.step}, the last: the loss is not finite")
    finish(job, state)
    return Outcome(state.step)


def _stop(job: Job, state: TrainState, by: Signals) -> Outcome:
    """Where a signal ends the run."""
    job.monitor.say(ended(job, state, f"stopped by {by.name}"))
    return Outcome(state.step, by)


def _counted(state: TrainState, report: StepReport) -> TrainState:
    """The state with one more step, made or skipped."""
    state = replace(state, step=state.step + 1)
    if not report.skipped:
        return replace(state, skipped_in_a_row=0)
    in_a_row = 0 if _scale_search(report) else state.skipped_in_a_row + 1
    return replace(state, skipped=state.skipped + 1, skipped_in_a_row=in_a_row)


def _scale_search(report: StepReport) -> bool:
    """Whether a gradient overflowed: so the loss scale of fp16 finds its place, until it is 1."""
    return report.scale_fell and not report.blamed


def _judge(job: Job, state: TrainState, report: StepReport, batches: list[PairBatch]) -> None:
    """Record what went wrong in a step; too many skipped steps in a row end the run.

    Raises:
        TrainingStopped: on all ranks.
    """
    if report.skipped and not _scale_search(report):
        text = nonfinite_text(state.step, report.blamed, report.scalars["loss/total"])
        last = state.skipped_in_a_row > job.config.train.nonfinite_limit
        skipped = f"{text}: step skipped on all ranks"
        job.monitor.event(state.step, skipped, report.blamed, shown=not last)
        if last:
            raise _not_finite(job, state, text)
    if job.spikes.see(report.scalars["loss/total"]):
        ids = gather_objects([i for batch in batches for i in batch.sample_ids.tolist()])
        text = f"step {state.step}: the loss jumped to {report.scalars['loss/total']:.4g}"
        job.monitor.event(state.step, text, dict(enumerate(ids)))


def _not_finite(job: Job, state: TrainState, text: str) -> TrainingStopped:
    """The end of a run whose losses are not finite."""
    remedies = nonfinite_remedies(job.config, state.step, state.step - state.skipped)
    remedies.append("raise train.nonfinite_limit")
    then = "goes on from there" if job.saved[1] else "starts anew"
    return TrainingStopped(
        f"{text}; last good checkpoint: {job.saved[1] or 'none yet'}",
        fix=f"{', else '.join(remedies)}; the command then {then}",
    )


def _tell(
    job: Job, state: TrainState, report: StepReport, batches: list[PairBatch], pace: Pace
) -> None:
    """Log what the step measured, where it is its turn."""
    step = state.step
    job.monitor.step(step)
    last = step == job.plan.total_steps
    if step % job.config.monitor.log_every_steps == 0 or last or report.skipped:
        counts = {
            "progress/skipped_steps": float(state.skipped),
            "progress/epoch": float(state.order.epoch),
        }
        numbers = report.scalars | counts | pace.read() | memory(job.ranks.device)
        job.monitor.training(step, numbers)
    if report.answers is not None and job.ranks.is_first:
        known = job.plan.train
        pairs = captioned(batches[-1], report.answers, known.identities, known.kinds)
        job.monitor.picture(step, "pairs", pair_grid(pairs))


def _picture_due(job: Job, state: TrainState) -> bool:
    monitor = job.config.monitor
    due = monitor.images and (state.step + 1) % monitor.pictures_every_steps == 0
    return due and job.config.train.images_per_pair == 2
