"""What stands around the steps of a run: ranks meet, the folder is locked, pairs come."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from distill import console
from distill.checkpoint import RunFacts, TrainState
from distill.collectives import from_first, together
from distill.config import Config
from distill.data.compiled import told_of_compiling
from distill.data.loader import PairLoader, make_train_loader
from distill.engine import Engine
from distill.errors import UserError
from distill.monitor import Monitor
from distill.plan import Plan
from distill.processes.stop import StopRequests
from distill.processes.watchdog import Watchdog
from distill.ranks import Ranks, init_process_group, leave_process_group
from distill.watch import LossSpikes


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
def process_group(config: Config, ranks: Ranks, stops: StopRequests | None) -> Iterator[None]:
    """Meet the other ranks, and part from them in the end; see `init_process_group`."""
    init_process_group(config, ranks, stops)
    try:
        yield
    except BaseException:
        # Peers may hang in a collective: only a job of one rank can part in good order.
        if ranks.world_size == 1:
            leave_process_group()
        raise
    leave_process_group()


_STEP_NEEDS_LESS = "lower train.global_batch_pairs, or raise train.accumulation or train.zero_stage"
_RANKS_HOLD_LESS = (
    'set head.placement = "sharded", raise train.zero_stage, or start more ranks, which share'
    " out weights and moments"
)
_INTACT = "checkpoints are intact, the same command resumes"


@contextmanager
def memory_hints(device: torch.device, before_steps: str = "") -> Iterator[None]:
    """Say what helps where the memory of a CUDA device, or of the machine, does not suffice.

    Args:
        device: of this rank.
        before_steps: what is done, where there is no batch yet that could be smaller.

    Raises:
        UserError: in place of torch's error, or Python's.
    """
    less = _RANKS_HOLD_LESS if before_steps else _STEP_NEEDS_LESS
    try:
        yield
    except torch.OutOfMemoryError as error:
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        raise UserError(
            f"out of memory on {device} ({peak:.1f} GiB in use at most): {error}",
            fix=f"{less}; {_INTACT}",
        ) from error
    except UserError:
        raise
    except Exception as error:
        if not _no_host_memory(error):
            raise
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        raise UserError(
            f"out of memory of this machine while {before_steps or 'training'} ({held:.1f} GiB held"
            f" by this rank at most): {str(error) or type(error).__name__}",
            fix="give the job more memory or each machine fewer ranks (`pairdistill plan` says what"
            f" one needs); else {less}; {_INTACT}",
        ) from error


def _no_host_memory(error: Exception) -> bool:
    """Whether Python, numpy, torch or the system had no memory left; torch says what that said."""
    return isinstance(error, MemoryError) or os.strerror(errno.ENOMEM) in str(error)


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


def steps_if_complete(plan: Plan, config: Config) -> int | None:
    """Steps of the run where nothing is left to do, as rank 0 sees it; else None."""
    found: int | None = from_first(_steps_if_complete(plan, config))
    return found


def _steps_if_complete(plan: Plan, config: Config) -> int | None:
    try:
        found = json.loads(plan.run.complete.read_text(encoding="utf-8"))
        steps = int(found["steps"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # then its checkpoint tells
        return None
    return steps if found == completion(plan, config, steps) else None


def completion(plan: Plan, config: Config, steps: int) -> dict[str, object]:
    """What ``complete.json`` says of a finished run of so many ``steps``.

    More of them make it stale; so do another pack and network, which its checkpoint then refuses.
    Of a run in epochs the steps depend on the batches that it was made with.
    """
    train = config.train
    return {
        "steps": steps,
        "asked": {"steps": train.steps} if train.steps else {"epochs": train.epochs},
        "train": plan.train.digest,
        "model": config.model.model_dump(mode="json"),
        "head": config.head.model_dump(mode="json"),
    }


def open_loader(job: Job, state: TrainState) -> PairLoader:
    """This rank's training pairs, or what is used of them, from the place that ``state`` names."""
    with (
        told_of_compiling(lambda text: note(job.ranks, text)),
        memory_hints(job.ranks.device, "reading the index of the packs"),
    ):
        return make_train_loader(
            job.plan.train,
            job.config.data,
            seed=job.config.run.seed,
            ranks=job.ranks,
            batch_pairs_per_rank=job.plan.micro_batch_pairs,
            state=state.order,
            accumulation=job.config.train.accumulation,
            images_per_pair=job.config.train.images_per_pair,
        )


def note(ranks: Ranks, text: str) -> None:
    """One line on the terminal, from rank 0."""
    if ranks.is_first:
        console.note(text)


def warn(ranks: Ranks, text: str) -> None:
    """One warning on the terminal, from rank 0."""
    if ranks.is_first:
        console.warn(text)
