"""The weights inside of DeepSpeed's engine, and how ZeRO cuts them; plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from distill.planner.facts import (
    FLOAT_BYTES,
    PERSISTENT_ELEMENTS,
    Choice,
    HeadCost,
    Job,
    NetworkCost,
)

LIVE_ELEMENTS = 10**9
"""DeepSpeed's `stage3_max_live_parameters`, and its `stage3_max_reuse_distance`."""


@dataclass(frozen=True)
class Engine:
    """The weights inside of DeepSpeed's engine.

    Attributes:
        weights: elements of each parameter and whether it decays, in the order of the module.
        ranks: W.
        bucket_elements: the most that a bucket holds.
    """

    weights: tuple[tuple[int, bool], ...]
    ranks: int
    bucket_elements: int

    @property
    def bytes(self) -> int:
        """P."""
        return FLOAT_BYTES * sum(n for n, _ in self.weights)

    @property
    def slice_bytes(self) -> int:
        """P / W."""
        return -(-self.bytes // self.ranks)

    @property
    def bucket_bytes(self) -> int:
        """Bytes of a bucket (see `distill.engine_parts.settings`)."""
        return min(self.bytes, FLOAT_BYTES * self.bucket_elements)

    @property
    def largest_bytes(self) -> int:
        """Of the largest parameter."""
        return FLOAT_BYTES * max(n for n, _ in self.weights)

    @property
    def persistent_bytes(self) -> int:
        """What stage 3 leaves whole."""
        small = sum(n for n, _ in self.weights if n < PERSISTENT_ELEMENTS)
        return FLOAT_BYTES * small if self.ranks > 1 else 0

    @property
    def gathered_bytes(self) -> int:
        """Weights that stage 3 makes whole at a time."""
        most = max(FLOAT_BYTES * LIVE_ELEMENTS, self.largest_bytes) + self.bucket_bytes
        return min(self.bytes, most) if self.ranks > 1 else 0

    @property
    def own_tensors_bytes(self) -> int:
        """Gradients of the tensors with an element in a rank's slice, on the rank with most."""
        groups = [[n for n, decays in self.weights if decays is wanted] for wanted in (True, False)]
        decayed, others = (_touched(group, self.ranks) for group in groups)
        return FLOAT_BYTES * max(map(int.__add__, decayed, others))


def _touched(sizes: list[int], ranks: int) -> list[int]:
    """Elements of the tensors that each rank's slice of their concatenation touches."""
    share = -(-sum(sizes) // ranks) if sizes else 0
    found, end = [0] * ranks, 0
    for size in sizes:
        start, end = end, end + size
        for rank in range(start // share, min((end - 1) // share + 1, ranks)):
            found[rank] += size
    return found


def engine_of(job: Job, choice: Choice, network: NetworkCost, head: HeadCost) -> Engine:
    """What the engine trains: the head too, unless it is shared out by classes."""
    inside = head.weights if choice.placement == "replicated" else ()
    return Engine(network.weights + inside, job.ranks, job.bucket_elements)
