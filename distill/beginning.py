"""Where a run begins: at its newest good checkpoint, at the weights of another run, or afresh."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distill.checkpoint import RunFacts, TrainState, latest_verified, load, start_from
from distill.config import dump_toml
from distill.errors import UserError
from distill.files import write_whole
from distill.job import note, warn
from distill.ranks import gather_objects, together
from distill.schedules import peak_lr

if TYPE_CHECKING:
    from distill.checkpoint import Found
    from distill.config import Config
    from distill.data.training_set import SameNames, TrainingSet
    from distill.engine import Engine
    from distill.plan import Plan

_ACCEPTED: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "data": ("data",),
    "identities": ("identities",),
    "all": ("data", "identities"),
}


class Beginning(NamedTuple):
    """What a run begins with.

    Attributes:
        facts: what its checkpoints must agree on.
        state: its place.
        saved: the checkpoint it goes on from; None where there is none yet.
        words: where it begins, for people.
    """

    facts: RunFacts
    state: TrainState
    saved: Path | None
    words: str


def begin_or_resume(config: Config, plan: Plan, engine: Engine) -> Beginning:
    """Bring a fresh ``engine`` to where the run folder stands; all ranks must call it.

    Raises:
        UserError: checkpoints of which none is good, or of another run; one where none may be, or
            beyond the steps of this run; weights to start from that do not fit. On all ranks, and
            ``config.toml`` is as it was.
    """
    found = latest_verified(plan.run.checkpoints, engine.ranks)
    settings = (config, plan, engine)
    begun = _resumed(found, *settings) if found else _fresh(*settings)
    _write_settings(config, plan, engine)
    for moved, reason in found.set_aside if found else ():
        warn(engine.ranks, f"checkpoint damaged and set aside: {moved} ({reason})")
    note(engine.ranks, _opening(config, plan, engine, begun.words))
    return begun


def _fresh(config: Config, plan: Plan, engine: Engine) -> Beginning:
    """A run without a checkpoint, with a new identity; its weights may be another's."""
    facts = _facts(config, plan, gather_objects(uuid.uuid4().hex)[0])
    words = "a fresh start"
    if config.model.init_from:
        origin, head = Path(config.model.init_from), config.model.init_head
        words = f"from {start_from(origin, engine, plan.classes, head=head)}"
    return Beginning(facts, TrainState(step=0), None, words)


def _resumed(found: Found, config: Config, plan: Plan, engine: Engine) -> Beginning:
    """A run that goes on from a checkpoint, with the identity that stands there."""
    if not config.run.resume:
        raise UserError(
            f"run.dir = {config.run.dir!r}: holds a checkpoint, and run.resume is false",
            fix="set run.resume to true, or choose another run.dir",
        )
    facts = _facts(config, plan, found.manifest.run_id)
    state = load(found, engine, facts, allow=_ACCEPTED[config.run.accept])
    if state.step > plan.total_steps:
        raise UserError(
            f"run.dir = {config.run.dir!r}: has {state.step} steps behind it, and the settings"
            f" ask for {plan.total_steps} in all",
            fix="raise train.steps or train.epochs, or choose another run.dir",
        )
    return Beginning(facts, state, found.path, f"going on after step {state.step} ({found.path})")


def _facts(config: Config, plan: Plan, run_id: str) -> RunFacts:
    return RunFacts(
        run_id=run_id,
        config=config.model_dump(mode="json"),
        identities=plan.classes,
        data_digest=plan.train.digest,
    )


def _write_settings(config: Config, plan: Plan, engine: Engine) -> None:
    """The settings of this start and its length, in the run folder, by the hand of rank 0."""
    with together():
        if engine.ranks.is_first:
            write_whole(plan.run.length, json.dumps({"steps": plan.total_steps}).encode())
            write_whole(plan.run.config_toml, dump_toml(config).encode())


def _opening(config: Config, plan: Plan, engine: Engine, begins: str) -> str:
    """What is about to happen, in one line."""
    ranks = engine.ranks
    return (
        f"{config.model.name}, {_data(plan.train, config.data.same_names)};"
        f" head: {_head_words(config)};"
        f" {ranks.world_size} rank(s) on {ranks.device.type}, ZeRO {config.train.zero_stage},"
        f" {config.train.precision}, pair loss: {plan.loss_implementation};"
        f" {plan.total_steps} steps, {_rate(config)}, {begins}"
    )


def _rate(config: Config) -> str:
    """The peak learning rate, and where it comes from if a batch scaled it."""
    optimizer = config.optimizer
    peak = f"learning rate {peak_lr(config):.4g}"
    if not optimizer.lr_batch_pairs:
        return peak
    times = f"{config.train.global_batch_pairs}/{optimizer.lr_batch_pairs} pairs"
    return f"{peak} ({optimizer.lr:.4g}, {optimizer.lr_scaling} in {times})"


def _data(train: TrainingSet, same_names: SameNames) -> str:
    """How many people and pairs, and where names of several packs went."""
    text = f"{len(train.identities)} people, {train.pairs} pairs"
    if len(train.packs) == 1:
        return text
    merged = "merged" if same_names == "same_person" else "kept apart"
    shared = f"{train.people.shared} names in several of them {merged}"
    return f"{text} of {len(train.packs)} packs ({shared})"


def _head_words(config: Config) -> str:
    """Where the head stands and how its scores are made."""
    head = config.head
    sample = f", {head.sample_rate:g} of it a step" if head.sample_rate < 1.0 else ""
    centres = f", {head.sub_centres} sub-centres" if head.sub_centres > 1 else ""
    return f"{head.kind}{centres}, {head.placement}{sample}, {config.loss.form} loss"
