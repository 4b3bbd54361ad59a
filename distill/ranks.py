"""Who this process is among the ranks of a job, and how it meets and leaves the others.

A job runs on W ranks. Each finds itself in one of three ways (`from_environment`):

1. torchrun or a Slurm launcher set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR
   and MASTER_PORT;
2. `distill.processes.spawn.spawn_local` (``pairdistill train --ranks N``) set the same variables
   and left a listening socket to rank 0, so that no port can be lost between choosing and using it;
3. nothing is set: a job of one rank.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from distill import gpus
from distill.console import warn
from distill.errors import UserError
from distill.meeting import meet
from distill.processes.cores import usable_cores
from distill.processes.spawn import LISTEN_FD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.config.tree import Config
    from distill.processes.stop import StopRequests

_IDENTITY = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """One process among W.

    Attributes:
        rank: place among all ranks, in [0, world_size).
        world_size: number of ranks W.
        local_rank: place among the ranks of this machine.
        local_world_size: number of ranks on this machine.
        device: where this rank computes.
        late_min: how many minutes later than others some ranks may come to meet them.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device
    late_min: float = 0.0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that writes to the console and to the logs."""
        return self.rank == 0

    def own_part(self, title: str) -> str:
        """The title of a bar that counts what this rank does, of work that all ranks share."""
        return title if self.world_size == 1 else f"{title}, rank {self.rank}'s share"


def from_environment(config: Config, environment: Mapping[str, str] = os.environ) -> Ranks:
    """Who this process is.

    Raises:
        UserError: part of the variables is missing or does not fit together (the variable is
            named), or the device asked for is not there.
    """
    if not any(name in environment for name in _IDENTITY):
        return _single(config, environment)
    return _launched(config, environment)


def _single(config: Config, environment: Mapping[str, str]) -> Ranks:
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    several = tasks != "1" and environment.get("SLURM_PROCID") == "0"
    if several and not ("SLURM_PTY_PORT" in environment and _has_terminal()):
        warn(
            f"srun has started {tasks} tasks, and each of them does all of this work by itself;"
            " give srun one task, and the command --ranks, or start training by `submit`"
        )
    return Ranks(0, 1, 0, 1, _device(config.run.device, 0, environment={}))


def _has_terminal() -> bool:
    """Whether a terminal controls this process, as in the one shell that `srun -n 8 --pty` starts.

    What srun starts in that shell inherits its variables, and no terminal.
    """
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _launched(config: Config, environment: Mapping[str, str]) -> Ranks:
    for name in _IDENTITY + _MEETING_PLACE:
        if name not in environment:
            raise UserError(
                f"{name} is missing from the environment while others of"
                f" {', '.join(_IDENTITY + _MEETING_PLACE)} are set",
                fix="start with torchrun or `pairdistill train --ranks N`, or unset them all",
            )
    rank, world_size, local_rank, local_world_size = (
        _whole_number(environment, name) for name in _IDENTITY
    )
    _must_fit(rank < world_size, "RANK", rank, "WORLD_SIZE", world_size)
    _must_fit(
        local_rank < local_world_size,
        "LOCAL_RANK",
        local_rank,
        "LOCAL_WORLD_SIZE",
        local_world_size,
    )
    device = _device(config.run.device, local_rank, environment)
    return Ranks(rank, world_size, local_rank, local_world_size, device)


def _whole_number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.isdecimal():
        raise UserError(f"{name} = {text!r}: must be a whole number", fix="start with torchrun")
    return int(text)


def _must_fit(fits: bool, name: str, value: int, bound: str, limit: int) -> None:
    if not fits:
        raise UserError(
            f"{name} = {value} with {bound} = {limit}: must be smaller", fix="start with torchrun"
        )


def _device(wanted: str, local_rank: int, environment: Mapping[str, str]) -> torch.device:
    """The device of a rank; ``auto`` takes CUDA where there is one."""
    available = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise UserError(
            f"run.device = 'cuda': torch sees no CUDA device: {why_unseen()}", fix=gpus.REMEDY
        )
    count = torch.cuda.device_count()
    if local_rank < count:
        return torch.device("cuda", local_rank)
    # Each task of srun is bound to a device of its own; ranks that a task starts share what it has.
    if count == 1 and environment.get("SLURM_LOCALID") == str(local_rank):
        return torch.device("cuda", 0)
    raise UserError(
        f"local rank {local_rank} has no CUDA device: this machine shows {count}",
        fix=f"start at most {count} ranks here, or use run.device=cpu",
    )


def why_unseen() -> str:
    """Why torch sees no CUDA device, in its own words where it has some."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return f"torch {torch.__version__} is built for the CPU alone"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # such as a driver that is too old, and how old it is
        return f"torch {torch.__version__}: {str(error).split(' Please ')[0].rstrip('.')}"
    return f"torch {torch.__version__} counts none"


def idle_gpus() -> str:
    """What of this machine torch does not see, and why; empty where it sees a GPU, or has none.

    So too where they are not for this process: of a job without GPUs it is as it should be.
    A run would train on the CPU, and they would idle unnoticed.
    """
    found = "" if gpus.withheld() or torch.cuda.is_available() else gpus.here()
    return found and f"{found} is here, and torch sees no CUDA device: {why_unseen()}"


def threads_per_rank(config: Config, ranks: Ranks) -> int:
    """CPU threads of this rank: as configured, else its share of the cores of this machine."""
    if config.run.threads_per_rank:
        return config.run.threads_per_rank
    cores = usable_cores()
    return cores if _has_own_cores(ranks, cores) else max(1, cores // ranks.local_world_size)


def _has_own_cores(ranks: Ranks, cores: int) -> bool:
    """Whether these cores are a task's share already, by srun's hand or the launcher's.

    Slurm counts in SLURM_CPUS_ON_NODE those of all tasks of a step on this node. Ranks that
    `spawn_local` starts share what one task has.
    """
    on_node = int(os.environ.get("SLURM_CPUS_ON_NODE", "0"))
    largest_share = -(-on_node // ranks.local_world_size)
    return cores <= largest_share and LISTEN_FD not in os.environ


def set_threads(config: Config, ranks: Ranks) -> None:
    """Give torch the threads of this rank."""
    torch.set_num_threads(threads_per_rank(config, ranks))


def init_process_group(config: Config, ranks: Ranks, stops: StopRequests | None = None) -> None:
    """Meet the other ranks: NCCL between CUDA devices, gloo between CPU ranks.

    A job of one rank gets a process group of its own, so that nothing after this differs.
    A collective fails after ``train.collective_timeout_min`` minutes, and the meeting as long after
    the latest that a rank may come.

    Args:
        config: settings.
        ranks: this process among the others.
        stops: stop signals, where they are listened for already; they end the meeting.

    Raises:
        torch.distributed.DistStoreError: not all ranks have come by then.
        StoppedEarly: see `meet`.
    """
    timeout = timedelta(minutes=config.train.collective_timeout_min)
    on_cuda = ranks.device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(ranks.device)
    dist.init_process_group(
        "nccl" if on_cuda else "gloo",
        store=meet(ranks, timeout, stops),
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=timeout,
        device_id=ranks.device if on_cuda else None,
    )


def leave_process_group() -> None:
    """Part from the other ranks, where there is a process group."""
    if dist.is_initialized():
        let_go_seconds = 0.2 if dist.get_backend() == "gloo" else 0.0
        dist.destroy_process_group()
        time.sleep(let_go_seconds)  # its threads may else abort Python's end (docs/log.md)
