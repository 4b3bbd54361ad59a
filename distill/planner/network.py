"""Bytes that travel between ranks in a step, by collective; plain arithmetic.

A payload of n bytes over W ranks costs each rank (W - 1) / W n where it is gathered or scattered,
and twice that where it is reduced on all, as rings do (Patarasuk and Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations", 2009).
"""

from __future__ import annotations

from typing import NamedTuple

from distill.planner.engine import LIVE_ELEMENTS, engine_of
from distill.planner.facts import (
    FLOAT_BYTES,
    Choice,
    HeadCost,
    Job,
    NetworkCost,
    seen_rows,
)

ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER = "all-reduce", "all-gather", "reduce-scatter"


class Traffic(NamedTuple):
    """A collective of a step.

    Attributes:
        what: what travels.
        collective: how.
        payload: bytes of the whole, over all micro-batches of the step.
    """

    what: str
    collective: str
    payload: int

    def bytes_a_rank(self, ranks: int) -> float:
        """Bytes that each rank sends."""
        times = 2 if self.collective == ALL_REDUCE else 1
        return times * self.payload * (ranks - 1) / ranks


def traffic_of(job: Job, choice: Choice, network: NetworkCost, head: HeadCost) -> list[Traffic]:
    """The collectives of a step with ``choice``; none on one rank."""
    if job.ranks == 1:
        return []
    weights = engine_of(job, choice, network, head).bytes
    found = [Traffic("running statistics", ALL_REDUCE, network.buffer_bytes)]
    found += _of_engine(job, choice.zero_stage, weights)
    if choice.placement == "sharded":
        found += _of_head(job, choice, network)
    return [one for one in found if one.payload]


def _of_engine(job: Job, stage: int, weights: int) -> list[Traffic]:
    """What DeepSpeed sends of ``weights`` bytes."""
    if stage == 3:
        # Weights that fit the limit are gathered in forward and still there in backward.
        times = 1 if weights <= FLOAT_BYTES * LIVE_ELEMENTS else 2
        return [
            Traffic("weights", ALL_GATHER, times * weights * job.accumulation),
            Traffic("gradients", REDUCE_SCATTER, weights * job.accumulation),
        ]
    found = [Traffic("gradients", ALL_REDUCE, weights * (job.accumulation if stage == 2 else 1))]
    return found + ([Traffic("weights", ALL_GATHER, weights)] if stage else [])


def _of_head(job: Job, choice: Choice, network: NetworkCost) -> list[Traffic]:
    """Embeddings to all ranks, a few numbers of each pair, and gradients back."""
    rows, times = seen_rows(job, choice), job.accumulation
    values = rows * job.embedding_dim * times
    pairs = rows // job.images_per_pair * times
    return [
        Traffic("embeddings", ALL_GATHER, values * network.embedding_bytes),
        Traffic("labels", ALL_GATHER, 8 * pairs),
        Traffic("statistics", ALL_GATHER, job.statistics * FLOAT_BYTES * pairs * job.ranks),
        Traffic("their gradients", REDUCE_SCATTER, values * FLOAT_BYTES),
    ]
