"""Bringing the pieces of sharded tensors to the rank that writes them, a window at a time.

All tensors of one shard are thought of as one long vector of float32. For each window of it, every
rank lays its pieces into zeros, and a sum over ranks brings it to the writer. The sum is taken over
the bits as 32-bit integers: each element comes from one rank, so its bits arrive unchanged, also
those of NaN and of negative zero. Memory: one window, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist

from distill.engine_parts.fragments import WEIGHT, Fragment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.checkpoint.state import Trainable
    from distill.checkpoint.tensor_file import TensorSpec

WINDOW_ELEMENTS = 1 << 24
"""Elements of a window: 64 MiB."""


class _Placed(NamedTuple):
    """A piece of this rank, at its place in the long vector of one shard."""

    offset: int
    values: torch.Tensor


Held = Mapping[str, Sequence[Fragment]]
"""What a rank holds, by the key of the tensor in a checkpoint."""


def held_of(engine: Trainable) -> Held:
    """The pieces of this rank, looked up once a save: shards may be thousands."""
    found: dict[str, list[Fragment]] = {}
    for kind in (WEIGHT, *engine.moments):
        for fragment in engine.fragments(kind):
            found.setdefault(f"{kind}/{fragment.name}", []).append(fragment)
    return found


def windows_of_shard(
    engine: Trainable, held: Held, specs: Sequence[TensorSpec], writer: int
) -> Iterator[torch.Tensor | None]:
    """The float32 tensors of one shard, in order; a collective unless the state is replicated.

    Args:
        engine: whose tensors they are.
        held: `held_of` that engine.
        specs: of the shard.
        writer: the rank that writes it.

    Yields:
        On ``writer``, vectors that together hold all elements (float32, on the CPU); on the other
        ranks None, as often.
    """
    mine = engine.ranks.rank == writer
    pieces = list(_placed(held, specs)) if mine or not engine.replicated else []
    total = sum(spec.nbytes // 4 for spec in specs)
    for start in range(0, total, WINDOW_ELEMENTS):
        size = min(WINDOW_ELEMENTS, total - start)
        if engine.replicated and not mine:
            yield None
            continue
        bits = _lay_out(pieces, start, size, engine.device)
        if not engine.replicated:
            dist.reduce(bits, writer)
        yield bits.view(torch.float32).cpu() if mine else None


def _placed(held: Held, specs: Sequence[TensorSpec]) -> Iterator[_Placed]:
    offset = 0
    for spec in specs:
        for fragment in held.get(spec.key, ()):
            yield _Placed(offset + fragment.start, fragment.values)
        offset += spec.nbytes // 4


def _lay_out(
    pieces: Sequence[_Placed], start: int, size: int, device: torch.device
) -> torch.Tensor:
    """The bits of this rank's elements [start, start + size), zero where others hold them."""
    bits = torch.zeros(size, dtype=torch.int32, device=device)
    for offset, values in pieces:
        first = max(offset, start)
        end = min(offset + values.numel(), start + size)
        if first < end:
            part = values[first - offset : end - offset]
            bits[first - start : end - start] = part.view(torch.int32)
    return bits
