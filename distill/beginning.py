"""Where a run begins: at its newest good checkpoint, at the weights of another run, or afresh."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distill.checkpoint import RunFacts, TrainState, latest_verified, load, start_from
from distill.checkpoint.load import setting_differences
from distill.collectives import from_first, together
from distill.config import Config, dump_toml
from distill.data.order import steps_of
from distill.errors import UserError
from distill.files import disk_errors, write_whole
from distill.gpus import REMEDY
from distill.job import note, warn
from distill.losses.choice import plain_on_gpu
from distill.plan import come_to_nothing, slow_precision
from distill.ranks import idle_gpus
from distill.schedules import peak_lr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.checkpoint import Found
    from distill.data.training_set import TrainingSet
    from distill.engine import Engine
    from distill.plan import Plan

_ACCEPTED: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "data": ("data",),
    "identities": ("identities",),
    "all": ("data", "identities"),
}


_OF_NO_EFFECT = {
    "run": ("dir", "device", "threads_per_rank", "resume", "accept"),
    "data": (
        "train",
        "exclude",
        "evaluation",
        "same_names",
        "reader",
        "workers",
        "prefetch_batches",
    ),
    "head": ("placement",),
    "loss": (),
    "optimizer": (),
    "train": ("zero_stage", "nonfinite_limit", "collective_timeout_min", "hang_timeout_min"),
}
"""Sections whose settings decide what a step computes, each with those that do not, or are said
elsewhere."""


class Beginning(NamedTuple):
    """What a run begins with.

    Attributes:
        facts: what its checkpoints must agree on.
        state: its place.
        saved: the checkpoint it goes on from; None where there is none yet.
        total_steps: optimizer steps of the whole run, those behind it as they were made.
    """

    facts: RunFacts
    state: TrainState
    saved: Path | None
    total_steps: int


def begin_or_resume(config: Config, plan: Plan, engine: Engine) -> Beginning:
    """Bring a fresh ``engine`` to where the run folder, locked, stands; all ranks must call it.

    Raises:
        UserError: checkpoints of which none is good, or of another run; one where none may be, or
            beyond the steps of this run; weights to start from that do not fit. On all ranks, and
            ``config.toml`` is as it was.
    """
    found = latest_verified(plan.run.checkpoints, engine.ranks, alone=True)
    settings = (config, plan, engine)
    begun, words = _resumed(found, *settings) if found else _fresh(*settings)
    _write_settings(config, plan, engine, begun.total_steps)
    for damage in found.damage() if found else ():
        warn(engine.ranks, damage)
    note(engine.ranks, _opening(config, plan, engine, begun.total_steps, words))
    if config.run.device != "cpu" and engine.ranks.device.type == "cpu" and (unseen := idle_gpus()):
        warn(
            engine.ranks,
            f"run.device = {config.run.device!r}: trains on the CPU; {unseen}; {REMEDY}",
        )
    if plain := plain_on_gpu(config, engine.ranks.device.type):
        warn(engine.ranks, plain)
    for text in come_to_nothing(config, begun.total_steps, evaluates=plan.evaluates):
        warn(engine.ranks, text)
    if slow := slow_precision(config, engine.ranks.device):
        note(engine.ranks, slow)
    changed = list(_changed(found, config)) if found else []
    if changed:
        note(engine.ranks, f"from here on with other settings: {'; '.join(changed)}")
    return begun


def _fresh(config: Config, plan: Plan, engine: Engine) -> tuple[Beginning, str]:
    """A run without a checkpoint, with a new identity; its weights may be another's."""
    facts = _facts(config, plan, from_first(uuid.uuid4().hex))
    words = "a fresh start"
    if config.model.init_from:
        origin, head = Path(config.model.init_from), config.model.init_head
        start = start_from(origin, engine, plan.classes, head=head)
        words = f"from {start}"
        if start.numbers_of not in (None, plan.train.packs_digest):
            warn(
                engine.ranks,
                f"model.init_from = {str(origin)!r}: its people are numbers, and {start.kept} rows"
                " of the head went to equal numbers of another pack; if those are other people,"
                " set model.init_head = false",
            )
    return Beginning(facts, TrainState(step=0), None, plan.total_steps), words


def _resumed(found: Found, config: Config, plan: Plan, engine: Engine) -> tuple[Beginning, str]:
    """A run that goes on from a checkpoint, with the identity that stands there."""
    if not config.run.resume:
        raise UserError(
            f"run.dir = {config.run.dir!r}: holds a checkpoint, and run.resume is false",
            fix="set run.resume to true, or choose another run.dir",
        )
    facts = _facts(config, plan, found.manifest.run_id)
    state = load(found, engine, facts, allow=_ACCEPTED[config.run.accept])
    total_steps = _length(config, plan, state, found)
    words = f"going on after step {state.step} ({found.path})"
    return Beginning(facts, state, found.path, total_steps), words


def _length(config: Config, plan: Plan, state: TrainState, found: Found) -> int:
    """Steps of a run that goes on: of epochs, those that are made and as many as are left need.

    Raises:
        UserError: more is behind it than the settings ask for.
    """
    train, pairs = config.train, plan.train.pairs
    if train.steps:
        behind, asked, over = f"{state.step} steps", train.steps, state.step > train.steps
        length = train.steps
    else:
        seen = state.order.epoch * pairs + state.order.consumed
        # The last step may have begun an epoch more, with what its batch was.
        last = found.manifest.config.get("train", {}).get("global_batch_pairs", 1)
        over = seen - train.epochs * pairs >= last
        behind, asked = f"{seen / pairs:.4g} epochs", train.epochs
        length = state.step + steps_of(train.epochs, pairs, train.global_batch_pairs, seen)
    if over:
        raise UserError(
            f"run.dir = {config.run.dir!r}: has {behind} behind it, and the settings ask for"
            f" {asked} in all",
            fix="raise train.steps or train.epochs, or choose another run.dir",
        )
    return length


def _changed(found: Found, config: Config) -> Iterator[str]:
    """Settings that a run goes on with and was not made with, which no check minds."""
    there, here, default = found.manifest.config, config.model_dump(mode="json"), Config()
    for name, but in _OF_NO_EFFECT.items():
        yield from setting_differences(name, getattr(default, name), there, here, but=but)


def _facts(config: Config, plan: Plan, run_id: str) -> RunFacts:
    return RunFacts(
        run_id=run_id,
        config=config.model_dump(mode="json"),
        identities=plan.classes,
        data_digest=plan.train.digest,
    )


def _write_settings(config: Config, plan: Plan, engine: Engine, total_steps: int) -> None:
    """The settings of this start and its length, in the run folder, by the hand of rank 0.

    The run is not complete any more, if it was.
    """
    with together():
        if engine.ranks.is_first:
            write_whole(plan.run.length, json.dumps({"steps": total_steps}).encode())
            write_whole(plan.run.config_toml, dump_toml(config).encode())
            with disk_errors(plan.run.complete):
                plan.run.complete.unlink(missing_ok=True)


def _opening(config: Config, plan: Plan, engine: Engine, total_steps: int, begins: str) -> str:
    """What is about to happen, in one line."""
    ranks = engine.ranks
    return (
        f"{config.model.name}, {_data(plan.train, config)};"
        f" head: {_head_words(config)};"
        f" {ranks.world_size} rank(s) on {ranks.device.type}, ZeRO {config.train.zero_stage},"
        f" {config.train.precision}, pair loss: {plan.loss_implementation};"
        f" {total_steps} steps, {_rate(config)}, {begins}"
    )


def _rate(config: Config) -> str:
    """The peak learning rate, and where it comes from if a batch scaled it."""
    optimizer = config.optimizer
    peak = f"learning rate {peak_lr(config):.4g}"
    if not optimizer.lr_batch_pairs:
        return peak
    times = f"{config.train.global_batch_pairs}/{optimizer.lr_batch_pairs} pairs"
    return f"{peak} ({optimizer.lr:.4g}, {optimizer.lr_scaling} in {times})"


def _data(train: TrainingSet, config: Config) -> str:
    """How many people and pairs, and where names of several packs went."""
    what = "pairs" if config.train.images == "pair" else "first images"
    text = f"{len(train.identities)} people, {train.pairs} {what}"
    if train.gaps:
        text += f" ({len(train.gaps)} left out, {train.emptied} people have none)"
    if len(train.packs) == 1:
        return text
    merged = "merged" if config.data.same_names == "same_person" else "kept apart"
    shared = f"{train.people.shared} names in several of them {merged}"
    return f"{text} of {len(train.packs)} packs ({shared})"


def _head_words(config: Config) -> str:
    """Where the head stands and how its scores are made."""
    head = config.head
    sample = f", {head.sample_rate:g} of it a step" if head.sample_rate < 1.0 else ""
    centres = f", {head.sub_centres} sub-centres" if head.sub_centres > 1 else ""
    return f"{head.kind}{centres}, {head.placement}{sample}, {config.loss.form} loss"
