"""Seconds of a step by a roofline: the slowest of arithmetic, memory and network.

Each of the three is taken to run at a share of its peak, and to hide behind the slowest. It is a
bound of what a machine could do, good for comparing choices; a real step also waits for launches,
for the loader, and where one of the three must come before another.
"""

from __future__ import annotations

from dataclasses import dataclass

from distill.planner.engine import engine_of
from distill.planner.facts import Choice, HeadCost, Job, NetworkCost
from distill.planner.gpus import Gpu
from distill.planner.network import Traffic

PASSES = {"sgd": 12, "adamw": 16}
"""Reads and writes of each weight's float32 numbers in an update, by torch's optimizers: norm,
clipping, weight decay, moments, weights."""


@dataclass(frozen=True)
class Machine:
    """A cluster of one kind of GPU.

    Attributes:
        gpu: the GPU.
        ranks_per_node: GPUs of a node.
        arithmetic: share of the peak that matrix products reach.
        memory: share of the peak of the memory.
        network: share of the peak of the network.
        headroom: share of a GPU's memory that is left to the CUDA context, to workspaces of
            libraries, and to what lies between tensors.
    """

    gpu: Gpu
    ranks_per_node: int = 8
    arithmetic: float = 0.5
    memory: float = 0.75
    network: float = 0.75
    headroom: float = 0.1

    @property
    def usable_bytes(self) -> float:
        """Bytes for tensors."""
        return self.gpu.memory_gib * 2**30 * (1.0 - self.headroom)


@dataclass(frozen=True)
class Seconds:
    """Seconds of a step.

    Attributes:
        arithmetic: of matrix products and convolutions.
        memory: of reading and writing.
        network: of collectives.
    """

    arithmetic: float
    memory: float
    network: float

    @property
    def step(self) -> float:
        """The slowest."""
        return max(self.arithmetic, self.memory, self.network)

    @property
    def bound_by(self) -> str:
        """Which it is."""
        return max(vars(self), key=lambda name: float(getattr(self, name)))


def seconds_of(
    job: Job,
    choice: Choice,
    network: NetworkCost,
    head: HeadCost,
    traffic: list[Traffic],
    machine: Machine,
) -> Seconds:
    """The time of an optimizer step with ``choice`` on ``machine``."""
    half, single = (
        1e12 * machine.arithmetic * rate
        for rate in (machine.gpu.half_tflops, machine.gpu.single_tflops)
    )
    narrow = half if job.precision != "fp32" else single
    products = network.flops / narrow + head.flops / (narrow if head.low_precision else single)
    moved = job.accumulation * (network.moved_bytes + head.moved_bytes)
    moved += _update_bytes(job, choice, network, head)
    sent = sum(one.bytes_a_rank(job.ranks) for one in traffic)
    one_node = job.ranks <= machine.ranks_per_node
    link = machine.gpu.node_gb_s if one_node else machine.gpu.network_gb_s
    return Seconds(
        arithmetic=job.accumulation * products,
        memory=moved / (1e9 * machine.memory * machine.gpu.memory_gb_s),
        network=sent / (1e9 * machine.network * link),
    )


def _update_bytes(job: Job, choice: Choice, network: NetworkCost, head: HeadCost) -> float:
    """Bytes read and written by the update of a rank."""
    engine = engine_of(job, choice, network, head)
    updated = engine.bytes if choice.zero_stage == 0 else engine.slice_bytes
    if choice.placement == "sharded":
        updated += head.gradient_bytes  # float32 too
    return float(PASSES[job.optimizer] * updated)
