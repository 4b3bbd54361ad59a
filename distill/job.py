"""What stands around the steps of a run: ranks meet, the folder is locked, a state is found."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from distill import console
from distill.checkpoint import (
    RunFacts,
    Start,
    TrainState,
    latest_verified,
    load,
    start_from,
)
from distill.config import Config, dump_toml
from distill.data.loader import PairLoader, make_train_loader
from distill.data.training_set import SameNames, TrainingSet
from distill.engine import Engine
from distill.errors import UserError
from distill.files import write_whole
from distill.monitor import Monitor
from distill.plan import Plan
from distill.ranks import Ranks, gather_objects, init_process_group, leave_process_group, together
from distill.schedules import peak_lr
from distill.stop import StopRequests
from distill.watch import LossSpikes
from distill.watchdog import Watchdog

_ACCEPTED: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "data": ("data",),
    "identities": ("identities",),
    "all": ("data", "identities"),
}


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
        watchdog: is told of progress, and ends a rank that makes none.
        saved: newest good checkpoint, as (step, folder).
    """

    config: Config
    plan: Plan
    engine: Engine
    facts: RunFacts
    monitor: Monitor
    stops: StopRequests
    watchdog: Watchdog
    saved: tuple[int, Path | None]
    spikes: LossSpikes = field(default_factory=LossSpikes)

    @property
    def ranks(self) -> Ranks:
        """This process among the others."""
        return self.engine.ranks


@contextmanager
def process_group(config: Config, ranks: Ranks) -> Iterator[None]:
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
def memory_hints(device: torch.device) -> Iterator[None]:
    """Say what helps where the memory of a CUDA device does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        raise UserError(
            f"out of memory on {device} ({peak:.1f} GiB in use at most): {error}",
            fix="lower train.global_batch_pairs, or raise train.accumulation or train.zero_stage;"
            " checkpoints are intact, the same command resumes",
        ) from error


@contextmanager
def sole_job(plan: Plan, ranks: Ranks) -> Iterator[None]:
    """Hold the run folder, by the hand of rank 0."""
    lock = plan.run.acquire() if ranks.is_first else nullcontext()
    with together():
        lock.__enter__()
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def seed_everything(seed: int) -> None:
    """Equal weights on all ranks; what is random later is keyed by the step."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # torch's CPU kernels used here repeat to the bit by themselves; cuDNN is asked to. (Not by
    # `torch.use_deterministic_algorithms`: it imports torch's compiler, seconds in every rank.)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def is_complete(plan: Plan, config: Config) -> bool:
    """Whether nothing is left to do, as rank 0 sees it."""
    try:
        found = json.loads(plan.run.complete.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not done, or not known: then its checkpoint tells
        found = None
    return bool(gather_objects(found == completion(plan, config))[0])


def completion(plan: Plan, config: Config) -> dict[str, object]:
    """What ``complete.json`` says of a finished run.

    More steps make it stale; so do another pack and network, which its checkpoint then refuses.
    """
    return {
        "steps": plan.total_steps,
        "train": plan.train.digest,
        "model": config.model.model_dump(mode="json"),
        "head": config.head.model_dump(mode="json"),
    }


def begin_or_resume(
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
        data_digest=plan.train.digest,
    )
    start: Path | Start | None = found.path if found else None
    allow = _ACCEPTED[config.run.accept]
    state = load(found, engine, facts, allow=allow) if found else TrainState(step=0)
    if not found and config.model.init_from:
        start = start_from(Path(config.model.init_from), engine, plan.classes)
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
        warn(engine.ranks, f"checkpoint damaged and set aside: {moved} ({reason})")
    say(engine.ranks, _opening(config, plan, engine, state, start))
    return facts, state, found.path if found else None


def _opening(
    config: Config, plan: Plan, engine: Engine, state: TrainState, start: Path | Start | None
) -> str:
    """What is about to happen, in one line."""
    ranks = engine.ranks
    words = "a fresh start"
    if start is not None:
        resumed = isinstance(start, Path)
        words = f"going on after step {state.step} ({start})" if resumed else f"from {start}"
    return (
        f"{config.model.name}, {_data(plan.train, config.data.same_names)};"
        f" head: {_head_words(config)};"
        f" {ranks.world_size} rank(s) on {ranks.device.type}, ZeRO {config.train.zero_stage},"
        f" {config.train.precision}, pair loss: {plan.loss_implementation};"
        f" {plan.total_steps} steps, {_rate(config)}, {words}"
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
    return f"{head.kind}, {head.placement}{sample}, {config.loss.form} loss"


def open_loader(job: Job, state: TrainState) -> PairLoader:
    """This rank's training pairs, from the place that ``state`` names."""
    return make_train_loader(
        job.plan.train,
        job.config.data,
        seed=job.config.run.seed,
        ranks=job.ranks,
        batch_pairs_per_rank=job.plan.micro_batch_pairs,
        state=state.order,
        accumulation=job.config.train.accumulation,
    )


def say(ranks: Ranks, text: str) -> None:
    """One line on the terminal, from rank 0."""
    if ranks.is_first:
        console.say(text)


def warn(ranks: Ranks, text: str) -> None:
    """One warning on the terminal, from rank 0."""
    if ranks.is_first:
        console.warn(text)
