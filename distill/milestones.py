"""What happens at the boundaries between steps: evaluations, checkpoints, and the end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from distill.checkpoint import SaveFailed, TrainState, add_metrics, export_weights, prune, save
from distill.checkpoint.manifest import Damaged
from distill.collectives import barrier, together
from distill.errors import UserError
from distill.files import write_whole
from distill.job import completion
from distill.measure import measure, write_reports

if TYPE_CHECKING:
    from pathlib import Path

    from distill.job import Job


def _due(step: int, every: int) -> bool:
    return every > 0 and step > 0 and step % every == 0


def evaluation_due(job: Job, state: TrainState) -> bool:
    """Whether this step is to be evaluated and has not been."""
    due = _due(state.step, job.config.evaluate.every_steps)
    return due and job.plan.evaluates and not state.metrics


def evaluate_now(job: Job, state: TrainState) -> TrainState:
    """Measure the network on all that is held out, on all ranks.

    Raises:
        UserError: an image cannot be read, say; the step is saved, for the next start to evaluate.
    """
    try:
        found = measure(job, state).scalars
    except UserError:  # of one rank, and so of all
        job.monitor.warn(ended(job, state, f"step {state.step} could not be evaluated"))
        raise
    keep = job.config.checkpoint
    if keep.keep_best and keep.best_metric not in found:
        job.monitor.warn(
            f"checkpoint.best_metric = {keep.best_metric!r} is none of {', '.join(sorted(found))}"
        )
    state = replace(state, metrics=found)
    if job.saved[0] == state.step:  # where a run was stopped; else the save comes next
        with together():
            if job.ranks.is_first:
                _add_metrics(job, state)
    return state


def _add_metrics(job: Job, state: TrainState) -> None:
    """So that its checkpoint may be the best one, if it can be."""
    _, path = job.saved
    assert path is not None
    try:
        add_metrics(path, state)
    except (UserError, OSError, Damaged) as error:
        job.monitor.warn(f"what was measured cannot be noted in {path} ({error})")


def save_due(job: Job, state: TrainState) -> bool:
    """Whether this step is to be saved and has not been.

    Not while losses are not finite: then the weights may be spoilt, the last save is the good one.
    """
    due = _due(state.step, job.config.checkpoint.every_steps) and not state.skipped_in_a_row
    return due and job.saved[0] != state.step


def save_now(job: Job, state: TrainState, *, must: bool = False) -> None:
    """Write a checkpoint, then remove those that need not be kept.

    Raises:
        SaveFailed: it could not be written and ``must`` be; else training goes on with a warning.
    """
    folder = job.plan.run.checkpoints
    job.watchdog.mark("checkpoint", state.step)
    try:
        path = save(folder, job.engine, state, job.facts)
    except SaveFailed as error:
        if must:
            raise
        last = f"the last checkpoint is {job.saved[1]}" if job.saved[1] else "without a checkpoint"
        job.monitor.warn(f"{error}; training goes on, {last}")
        return
    job.saved = (state.step, path)
    with together():
        if job.ranks.is_first:
            _prune(job, folder, path)


def _prune(job: Job, folder: Path, newest: Path) -> None:
    """Remove what need not be kept, if it can be: on NFS a file that is open keeps its folder."""
    keep = job.config.checkpoint
    try:
        prune(
            folder,
            keep_last=keep.keep_last,
            keep_best=keep.keep_best,
            best_metric=keep.best_metric,
            verified=newest,
        )
    except OSError as error:
        job.monitor.warn(f"an old checkpoint cannot be removed ({error}); training goes on")


def ended(job: Job, state: TrainState, why: str) -> str:
    """Save where a run ends early, if it can be; not with losses not finite (`save_due`).

    On a full disk it ends all the same: the next start goes on from the last checkpoint, or says
    that there is no room.

    Returns:
        What to say of it: ``why``, and where the next start goes on.
    """
    but = "losses are not finite" if state.skipped_in_a_row else ""
    if not but and job.saved[0] != state.step:
        try:
            save_now(job, state, must=True)
        except SaveFailed as error:
            but = error.what
    place = (job.saved[1] or "the start") if but else "here"
    unsaved = f", and this step is not saved ({but})" if but else ""
    return f"{why}{unsaved}; the same command goes on from {place}"


def finish(job: Job, state: TrainState) -> None:
    """Save, evaluate, export the weights, and mark the run as complete.

    The save comes first: nothing that happens later may cost a step of training.
    """
    if job.saved[0] != state.step:
        save_now(job, state, must=True)
    run, (_, checkpoint) = job.plan.run, job.saved
    assert checkpoint is not None
    if job.plan.evaluates:
        _report(job, state)
    job.watchdog.mark("end", state.step)
    with job.watchdog.waiting_for(0), together():  # the export of a large head takes long
        if job.ranks.is_first:
            # Its digests were compared when it was saved, or when this start found it.
            export_weights(checkpoint, run.weights, compared=True, advance=job.watchdog.touch)
            done = completion(job.plan, job.config, state.step)
            write_whole(run.complete, json.dumps(done).encode())
    report = f", report in {run.report}" if job.plan.evaluates else ""
    job.monitor.say(f"{state.step} steps done: weights in {run.weights}{report}")
    barrier()


def _report(job: Job, state: TrainState) -> None:
    """Evaluate the trained network and write what was found."""
    found = measure(job, state)
    with together():
        if job.ranks.is_first:
            write_reports(job, state, found)
