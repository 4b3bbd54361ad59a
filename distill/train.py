"""A training run, from its settings to its weights: `train` and `_work` tell it in order.

Whatever happens to a run, the same command goes on with it: all that the next step depends on is
in a checkpoint (weights, moments, running statistics, place in the order of samples), or is a
function of the step (schedules, dropout, augmentations).
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import NamedTuple

import numpy as np
import torch

from distill.checkpoint import (
    RunFacts,
    SaveFailed,
    TrainState,
    export_weights,
    latest_verified,
    load,
    prune,
    save,
)
from distill.cli import console
from distill.config import Config, dump_toml
from distill.data.batch import PairBatch
from distill.data.loader import PairLoader, make_train_loader
from distill.data.saving import disk_errors, write_whole
from distill.engine import Engine
from distill.errors import TrainingStopped, UserError
from distill.evaluate import evaluate, scalars, write_report
from distill.models.classifier import build_classifier
from distill.monitor import Monitor
from distill.monitor.pictures import captioned, pair_grid
from distill.monitor.usage import Pace, memory
from distill.plan import Plan, make_plan
from distill.ranks import (
    Ranks,
    barrier,
    gather_objects,
    init_process_group,
    leave_process_group,
    set_threads,
    together,
)
from distill.step import Recipe, StepReport, train_step
from distill.stop import StopRequests
from distill.watch import LossSpikes, nonfinite_text

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


@dataclass
class Job:
    """What the parts of a run share.

    Attributes:
        config: settings.
        plan: packs, steps and places.
        engine: network and optimizer on the ranks.
        facts: what its checkpoints must agree on.
        monitor: logs and terminal.
        stops: stop signals that have come.
        saved: newest good checkpoint, as (step, folder).
    """

    config: Config
    plan: Plan
    engine: Engine
    facts: RunFacts
    monitor: Monitor
    stops: StopRequests
    saved: tuple[int, Path | None]
    spikes: LossSpikes = field(default_factory=LossSpikes)

    @property
    def ranks(self) -> Ranks:
        """This process among the others."""
        return self.engine.ranks


def train(config: Config, ranks: Ranks) -> Outcome:
    """Train until done or stopped, from where the run folder stands; all ranks must call it.

    Raises:
        UserError: settings, packs or checkpoints that do not fit, or a run folder in use; the
            run folder is as it was then.
        TrainingStopped: the loss was not finite too often in a row.
    """
    set_threads(config, ranks)
    with _process_group(config, ranks):
        with together():
            plan = make_plan(config, ranks)
        _seed_everything(config.run.seed, ranks)
        model = build_classifier(config, len(plan.classes))
        with _sole_job(plan, ranks), StopRequests() as stops:
            if _is_complete(plan):
                _say(ranks, f"{plan.run.root}: already complete, {plan.total_steps} steps")
                return Outcome(plan.total_steps)
            engine = Engine.create(model, config, ranks)
            facts, state, saved = _begin_or_resume(config, plan, engine)
            with Monitor(
                plan.run,
                config,
                resumed_step=state.step,
                total_steps=plan.total_steps,
                active=ranks.is_first,
            ) as monitor:
                job = Job(config, plan, engine, facts, monitor, stops, (state.step, saved))
                with _loader(job, state) as pairs:
                    return _work(job, state, pairs)


def _work(job: Job, state: TrainState, pairs: PairLoader) -> Outcome:
    """Step by step to the end, with evaluations and checkpoints at the boundaries."""
    pace = Pace(job.config.train.global_batch_pairs * _images_per_pair(job.config))
    recipe = Recipe(job.config, job.plan.total_steps)
    while True:
        if _evaluation_due(job, state):
            state = _evaluate(job, state)
            pace.restart()
        if _save_due(job, state):
            _save(job, state)
            pace.restart()
        if state.step == job.plan.total_steps:
            return _finish(job, state)

        waited = -pairs.wait_seconds
        taken = list(islice(pairs, job.config.train.accumulation))
        waited += pairs.wait_seconds
        batches, place = [batch for batch, _ in taken], taken[-1][1]
        report = train_step(
            job.engine,
            batches,
            recipe,
            state.step,
            job.stops.flags,
            answers_of=PAIRS_PICTURED if _picture_due(job, state) else 0,
        )
        state = replace(_counted(job, state, report), order=place, metrics={})
        pace.step(waited)
        _tell(job, state, report, batches, pace)
        _judge(job, state, report, batches)
        if report.stop is not None:
            _save(job, state, must=True)
            job.monitor.say(f"stopped by {report.stop.name}; the same command goes on from here")
            return Outcome(state.step, report.stop)


# Before the first step.


@contextmanager
def _process_group(config: Config, ranks: Ranks) -> Iterator[None]:
    """Meet the other ranks, and part from them in the end."""
    init_process_group(config, ranks)
    try:
        yield
    except BaseException:
        # Peers may hang in a collective: only a job of one rank can part in good order.
        if ranks.world_size == 1:
            leave_process_group()
        raise
    leave_process_group()


@contextmanager
def _sole_job(plan: Plan, ranks: Ranks) -> Iterator[None]:
    """Hold the run folder, by the hand of rank 0."""
    lock = plan.run.acquire() if ranks.is_first else nullcontext()
    with together():
        lock.__enter__()
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _seed_everything(seed: int, ranks: Ranks) -> None:
    """Equal weights on all ranks; what is random later is keyed by the step."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if ranks.device.type == "cpu":  # on CUDA it costs speed, and some operations refuse
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _is_complete(plan: Plan) -> bool:
    """Whether nothing is left to do, as rank 0 sees it."""
    done = plan.run.complete
    found = json.loads(done.read_text(encoding="utf-8")) if done.exists() else None
    return bool(gather_objects(found == _completion(plan))[0])


def _completion(plan: Plan) -> dict[str, object]:
    return {"steps": plan.total_steps, "train": plan.train.manifest.beton_sha256}


def _begin_or_resume(
    config: Config, plan: Plan, engine: Engine
) -> tuple[RunFacts, TrainState, Path | None]:
    """The state to start from, and the checkpoint it came from."""
    found = latest_verified(plan.run.checkpoints, engine.ranks)
    if found and not config.run.resume:
        raise UserError(
            f"run.dir = {config.run.dir!r}: holds a checkpoint, and run.resume is false",
            fix="set run.resume to true, or choose another run.dir",
        )
    facts = RunFacts(
        run_id=found.manifest.run_id if found else gather_objects(uuid.uuid4().hex)[0],
        config=config.model_dump(mode="json"),
        identities=plan.classes,
        data_digest=plan.train.manifest.beton_sha256,
    )
    state = load(found, engine, facts) if found else TrainState(step=0)
    if state.step > plan.total_steps:
        raise UserError(
            f"run.dir = {config.run.dir!r}: has {state.step} steps behind it, and the settings"
            f" ask for {plan.total_steps} in all",
            fix="raise train.steps or train.epochs, or choose another run.dir",
        )
    with together():
        if engine.ranks.is_first:
            write_whole(plan.run.config_toml, dump_toml(config).encode())
    for moved, reason in found.set_aside if found else ():
        _warn(engine.ranks, f"checkpoint damaged and set aside: {moved} ({reason})")
    _say(engine.ranks, _opening(config, plan, engine, state, found.path if found else None))
    return facts, state, found.path if found else None


def _opening(
    config: Config, plan: Plan, engine: Engine, state: TrainState, origin: Path | None
) -> str:
    """What is about to happen, in one line."""
    ranks = engine.ranks
    start = f"going on after step {state.step} ({origin})" if origin else "a fresh start"
    return (
        f"{config.model.name}, {len(plan.classes)} people, {plan.train.manifest.pairs} pairs;"
        f" {ranks.world_size} rank(s) on {ranks.device.type}, ZeRO {config.train.zero_stage},"
        f" {config.train.precision}, pair loss: {plan.loss_implementation};"
        f" {plan.total_steps} steps, {start}"
    )


def _loader(job: Job, state: TrainState) -> PairLoader:
    return make_train_loader(
        job.plan.train,
        job.config.data,
        seed=job.config.run.seed,
        ranks=job.ranks,
        batch_pairs_per_rank=job.plan.micro_batch_pairs,
        state=state.order,
        accumulation=job.config.train.accumulation,
    )


# Around a step.


def _counted(job: Job, state: TrainState, report: StepReport) -> TrainState:
    """The state with one more step, made or skipped."""
    state = replace(state, step=state.step + 1)
    if not report.skipped:
        return replace(state, skipped_in_a_row=0)
    # With fp16 a gradient that overflows is how the loss scale finds its place.
    in_a_row = 0 if _scale_search(job, report) else state.skipped_in_a_row + 1
    return replace(state, skipped=state.skipped + 1, skipped_in_a_row=in_a_row)


def _scale_search(job: Job, report: StepReport) -> bool:
    return job.config.train.precision == "fp16" and not report.blamed


def _judge(job: Job, state: TrainState, report: StepReport, batches: list[PairBatch]) -> None:
    """Record what went wrong in a step; too many skipped steps in a row end the run.

    Raises:
        TrainingStopped: on all ranks.
    """
    if report.skipped and not _scale_search(job, report):
        text = nonfinite_text(state.step, report.blamed)
        if state.skipped_in_a_row > job.config.train.nonfinite_limit:
            raise TrainingStopped(
                f"{text}; last good checkpoint: {job.saved[1] or 'none yet'}",
                fix="lower optimizer.lr or raise train.nonfinite_limit; the same command resumes",
            )
        job.monitor.event(state.step, f"{text}: step skipped on all ranks", report.blamed)
    if job.spikes.see(report.scalars["loss/total"]):
        ids = gather_objects([i for batch in batches for i in batch.sample_ids.tolist()])
        text = f"step {state.step}: the loss jumped to {report.scalars['loss/total']:.4g}"
        job.monitor.event(state.step, text, dict(enumerate(ids)))


def _tell(
    job: Job, state: TrainState, report: StepReport, batches: list[PairBatch], pace: Pace
) -> None:
    """Log what the step measured, where it is its turn."""
    step = state.step
    job.monitor.step(step)
    last = step == job.plan.total_steps
    if step % job.config.monitor.log_every_steps == 0 or last or report.skipped:
        counts = {"skipped_steps": float(state.skipped), "epoch": float(state.order.epoch)}
        numbers = report.scalars | counts | pace.read() | memory(job.ranks.device)
        job.monitor.training(step, numbers)
    if report.answers is not None:
        manifest = job.plan.train.manifest
        pairs = captioned(batches[-1], report.answers, manifest.identities, manifest.kinds)
        job.monitor.picture(step, "pairs", pair_grid(pairs))


def _picture_due(job: Job, state: TrainState) -> bool:
    every = job.config.monitor.pictures_every_steps
    due = every > 0 and (state.step + 1) % every == 0
    return due and job.ranks.is_first and _images_per_pair(job.config) == 2


def _images_per_pair(config: Config) -> int:
    return 2 if config.train.images == "pair" else 1


# At a boundary between steps.


def _due(step: int, every: int, total: int) -> bool:
    return step == total or (every > 0 and step > 0 and step % every == 0)


def _evaluation_due(job: Job, state: TrainState) -> bool:
    """Whether this step is to be evaluated and has not been."""
    due = _due(state.step, job.config.evaluate.every_steps, job.plan.total_steps)
    return due and job.plan.evaluation is not None and not state.metrics


def _evaluate(job: Job, state: TrainState) -> TrainState:
    """Measure the network on the held-out pack, on all ranks; at the end with a report."""
    pack = job.plan.evaluation
    assert pack is not None
    with (
        job.engine.evaluating() as network,
        job.monitor.part("evaluate", pack.manifest.pairs // job.ranks.world_size) as advance,
    ):
        report = evaluate(
            network,
            pack,
            job.config,
            job.ranks,
            class_names=job.plan.classes,
            checkpoint={"run_id": job.facts.run_id, "step": state.step},
            advance=advance,
        )
    found = scalars(report)
    job.monitor.evaluation(state.step, found)
    with together():
        if job.ranks.is_first and state.step == job.plan.total_steps:
            write_report(report, job.plan.run.report)
    return replace(state, metrics=found, best=_best(job, state, found))


def _best(job: Job, state: TrainState, found: dict[str, float]) -> float | None:
    """The best value so far of the metric that decides which checkpoints are kept."""
    name = job.config.checkpoint.best_metric
    if name not in found:
        if job.config.checkpoint.keep_best:
            job.monitor.warn(
                f"checkpoint.best_metric = {name!r} is none of {', '.join(sorted(found))}"
            )
        return state.best
    return found[name] if state.best is None else max(state.best, found[name])


def _save_due(job: Job, state: TrainState) -> bool:
    due = _due(state.step, job.config.checkpoint.every_steps, job.plan.total_steps)
    return due and job.saved != (state.step, job.saved[1])


def _save(job: Job, state: TrainState, *, must: bool = False) -> None:
    """Write a checkpoint, then remove those that need not be kept.

    Raises:
        SaveFailed: it could not be written and ``must`` be; else training goes on with a warning.
    """
    folder = job.plan.run.checkpoints
    try:
        path = save(folder, job.engine, state, job.facts)
    except SaveFailed as error:
        if must or state.step == job.plan.total_steps:
            raise
        job.monitor.warn(f"{error}; training goes on, the last checkpoint is {job.saved[1]}")
        return
    job.saved = (state.step, path)
    keep = job.config.checkpoint
    with together(), disk_errors(folder):
        if job.ranks.is_first:
            prune(
                folder,
                keep_last=keep.keep_last,
                keep_best=keep.keep_best,
                best_metric=keep.best_metric,
                verified=path,
            )


def _finish(job: Job, state: TrainState) -> Outcome:
    """Export the weights and mark the run as complete."""
    run, (_, checkpoint) = job.plan.run, job.saved
    assert checkpoint is not None
    with together():
        if job.ranks.is_first:
            export_weights(checkpoint, run.weights)
            write_whole(run.complete, json.dumps(_completion(job.plan)).encode())
    report = f", report in {run.report}" if job.plan.evaluation else ""
    job.monitor.say(f"{state.step} steps done: weights in {run.weights}{report}")
    barrier()
    return Outcome(state.step)


def _say(ranks: Ranks, text: str) -> None:
    if ranks.is_first:
        console.say(text)


def _warn(ranks: Ranks, text: str) -> None:
    if ranks.is_first:
        console.warn(text)
