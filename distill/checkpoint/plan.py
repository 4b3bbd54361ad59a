"""Who writes what: tensors whole, in one shard, the shards of about equal size; or by rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from distill.checkpoint.manifest import parts_of
from distill.checkpoint.tensor_file import TensorSpec
from distill.engine_parts.fragments import WEIGHT

if TYPE_CHECKING:
    from distill.checkpoint.state import Trainable

Plan = list[list[TensorSpec]]
"""For each rank the float32 tensors that are gathered to it, in the order they are written."""
_HEADER_BYTES_A_TENSOR = 1024
_BYTES_A_FILE = 64 * 1024
"""Beside its tensors."""


def plan_shards(engine: Trainable) -> Plan:
    """Spread weights and moments over the ranks, largest first, each to the least loaded.

    A pure function of shapes and ranks: all ranks come to the same plan. What stands by ranges of
    classes is not gathered, but written where it is (`local_tensors`).
    """
    specs = [
        TensorSpec(f"{kind}/{name}", torch.float32, shape)
        for kind in (WEIGHT, *engine.moments)
        for name, shape in engine.shapes.items()
        if name not in engine.class_bounds
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

    Before: its rows of what stands by ranges of classes, and the buffers (rank 0 alone), widest
    first. After: the random states, which are bytes.
    """
    ranks = engine.ranks
    mine = rows_of_this_rank(engine)
    if ranks.is_first:
        mine |= {f"buffer/{name}": buffer.detach() for name, buffer in engine.buffers.items()}
    before = dict(sorted(mine.items(), key=lambda item: -item[1].element_size()))
    random = {f"rng/{ranks.rank}/cpu": torch.get_rng_state()}
    if engine.device.type == "cuda":
        random[f"rng/{ranks.rank}/cuda"] = torch.cuda.get_rng_state(engine.device)
    return before, random


def rows_of_this_rank(engine: Trainable) -> dict[str, torch.Tensor]:
    """Weights and moments of this rank's classes, by the key of the part."""
    bounds, rank = engine.class_bounds, engine.ranks.rank
    return {
        parts_of(f"{kind}/{held.name}", bounds[held.name])[rank].key: held.values.view(
            -1, *engine.shapes[held.name][1:]
        )
        for kind in (WEIGHT, *engine.moments)
        for held in engine.fragments(kind)
        if held.name in bounds
    }


def estimated_bytes(plan: Plan, engine: Trainable) -> int:
    """Size of the whole checkpoint, with room for headers, buffers and manifest."""
    tensors = [spec for shard in plan for spec in shard]
    by_classes = sum(4 * math.prod(engine.shapes[name]) for name in engine.class_bounds)
    by_classes *= 1 + len(engine.moments)
    headers = _HEADER_BYTES_A_TENSOR * len(tensors) + _BYTES_A_FILE * len(plan)
    return sum(s.nbytes for s in tensors) + _bytes_of_buffers(engine) + by_classes + headers


def estimated_weights_bytes(engine: Trainable) -> int:
    """Size of the file of the weights alone (`export_weights`), with room for its header."""
    weights = sum(4 * math.prod(shape) for shape in engine.shapes.values())
    headers = _HEADER_BYTES_A_TENSOR * len(engine.shapes) + _BYTES_A_FILE
    return weights + _bytes_of_buffers(engine) + headers


def _bytes_of_buffers(engine: Trainable) -> int:
    return sum(b.numel() * b.element_size() for b in engine.buffers.values())
