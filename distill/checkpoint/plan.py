"""Who writes what: every tensor whole, in one shard, the shards of about equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from distill.checkpoint.shard import TensorSpec
from distill.engine_parts.fragments import WEIGHT

if TYPE_CHECKING:
    from distill.checkpoint.state import Trainable

Plan = list[list[TensorSpec]]
"""For each rank the float32 tensors that are gathered to it, in the order they are written."""


def plan_shards(engine: Trainable) -> Plan:
    """Spread weights and moments over the ranks, largest first, each to the least loaded.

    A pure function of shapes and ranks: all ranks come to the same plan.
    """
    specs = [
        TensorSpec(f"{kind}/{name}", torch.float32, shape)
        for kind in (WEIGHT, *engine.moments)
        for name, shape in engine.shapes.items()
    ]
    plan: Plan = [[] for _ in range(engine.ranks.world_size)]
    loads = [0] * len(plan)
    for spec in sorted(specs, key=lambda s: s.nbytes, reverse=True):
        rank = loads.index(min(loads))
        plan[rank].append(spec)
        loads[rank] += spec.nbytes
    return plan


def local_tensors(
    engine: Trainable,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tensors this rank writes before and after the gathered ones, so that all stay aligned.

    Before: the buffers (rank 0 alone), widest first. After: the random states, which are bytes.
    """
    ranks = engine.ranks
    buffers: dict[str, torch.Tensor] = {}
    if ranks.is_first:
        widest_first = sorted(engine.buffers.items(), key=lambda item: -item[1].element_size())
        buffers = {f"buffer/{name}": b.detach().cpu() for name, b in widest_first}
    random = {f"rng/{ranks.rank}/cpu": torch.get_rng_state()}
    if engine.device.type == "cuda":
        random[f"rng/{ranks.rank}/cuda"] = torch.cuda.get_rng_state(engine.device)
    return buffers, random


def estimated_bytes(plan: Plan, engine: Trainable) -> int:
    """Size of the whole checkpoint, with room for headers, buffers and manifest."""
    tensors = [spec for shard in plan for spec in shard]
    buffers = sum(b.numel() * b.element_size() for b in engine.buffers.values())
    per_rank = 64 * 1024
    return sum(s.nbytes for s in tensors) + buffers + 1024 * len(tensors) + per_rank * len(plan)
