"""One GPU and a share of the cores for each task of srun on a node; before torch is imported."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

from distill.errors import UserError
from distill.gpus import NO_DEVICE


def gpu_of(environment: Mapping[str, str], local_rank: int, local_world_size: int) -> str | None:
    """What CUDA_VISIBLE_DEVICES of a rank is to be; None to leave it.

    Slurm shows all GPUs of a job to each of its tasks, unless a site has it bind them. Each rank
    sees its own alone, so that no library can open a context on that of another.

    Raises:
        UserError: there are fewer GPUs than ranks.
    """
    shown = environment.get("CUDA_VISIBLE_DEVICES", "")
    devices = [device for device in shown.split(",") if device not in NO_DEVICE]
    on_node = environment.get("SLURM_GPUS_ON_NODE", "")
    bound = on_node.isdecimal() and int(on_node) >= local_world_size
    if not devices or (len(devices) == 1 and (local_world_size == 1 or bound)):
        return None
    if len(devices) < local_world_size:
        raise UserError(
            f"{len(devices)} GPU(s) ({shown}) for {local_world_size} ranks"
            f" on {socket.gethostname()}",
            fix="ask for as many --gpus-per-node as --ranks-per-node",
        )
    return devices[local_rank]


def cores_of(
    environment: Mapping[str, str], usable: Sequence[int], local_rank: int, local_world_size: int
) -> list[int] | None:
    """The cores that a rank is to keep to; None to leave them.

    Where Slurm has confined the job to its own cores, but not each task (no task/affinity), the
    ranks share them out. Where it has confined nothing, choosing cores would put two jobs on the
    same ones.

    Args:
        environment: of the rank.
        usable: cores it may run on now, ascending.
        local_rank: its place on the node.
        local_world_size: ranks on the node.
    """
    ours = int(environment.get("SLURM_CPUS_ON_NODE", "0"))
    share = len(usable) // local_world_size
    if local_world_size == 1 or share == 0 or len(usable) > ours:
        return None
    if len(usable) <= int(environment.get("SLURM_CPUS_PER_TASK", "0")):
        return None  # each task is confined already
    return list(usable[local_rank * share : (local_rank + 1) * share])


def bind(local_rank: int, local_world_size: int) -> None:
    """Bind this process, a task of srun.

    Raises:
        UserError: see `gpu_of`.
    """
    gpu = gpu_of(os.environ, local_rank, local_world_size)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    usable = sorted(os.sched_getaffinity(0))
    cores = cores_of(os.environ, usable, local_rank, local_world_size)
    if cores is not None:
        os.sched_setaffinity(0, cores)
