"""Bytes of tensors on a rank, by phase of a step and by part; plain arithmetic.

What DeepSpeed 0.19 holds was found by counting the tensors of real steps, and is held to that by
tests. With P the bytes of all weights in the engine (float32), W ranks, m moments:

    stage   weights   master   moments   gradients                       buckets
    0       P         -        m P       P                               P for the all-reduce
    1       P         P/W      m P/W     P, then those of own tensors    b
    2       P         P/W      m P/W     those of own tensors            b, twice where overlapped
    3       P/W       P/W      m P/W     P/W                             b

b is the bucket, or P if that is less. "Own tensors" are those with an element in the rank's slice,
and they count whole: a head larger than a slice is a whole gradient on every rank that has some of
it. Stage 3 gathers all weights in forward, as long as they are no more than `LIVE_ELEMENTS`, and
lets go of each in backward once its gradient is there: before the first layers none is left, where
blocks that are made again hold most.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from distill.planner.engine import LIVE_ELEMENTS, Engine, engine_of
from distill.planner.facts import (
    FLOAT_BYTES,
    IMAGE_VALUES,
    Choice,
    HeadCost,
    Job,
    NetworkCost,
    seen_rows,
)

ALL_REDUCE_ELEMENTS = 500_000_000
"""Gradients that stage 0 joins for one all-reduce."""
UNTOLD_BYTES = {2: 4 * 4 + 2 * 8, 1: 4 * 4 + 8}
"""Of another rank's state of a pair, or of a single image, what is not told: unused columns, and
the classes of the arg-max (see `distill.losses.sharded`)."""

Parts = Counter[str]
"""Bytes by part."""
PARTS = {
    "weights": "weights",
    "master": "master weights of ZeRO",
    "optimizer": "optimizer state",
    "gradients": "gradients",
    "buckets": "buckets of DeepSpeed",
    "gathered": "weights gathered by ZeRO 3",
    "activations": "activations",
    "casts": "weights in lower precision",
    "head": "head and loss, its gradient included",
    "features": "embeddings of all ranks",
    "update": "temporaries of the update",
    "loader": "images",
}
"""Parts in the order of tables, in words."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank, by phase and part.

    Attributes:
        phases: parts of each phase of a step.
    """

    phases: dict[str, Parts]

    @property
    def peak_phase(self) -> str:
        """The phase with the most."""
        return max(self.phases, key=lambda name: self.phases[name].total())

    @property
    def peak(self) -> Parts:
        """Parts of that phase."""
        return self.phases[self.peak_phase]

    @property
    def peak_bytes(self) -> int:
        """Bytes of that phase."""
        return self.peak.total()


def memory_of(job: Job, choice: Choice, network: NetworkCost, head: HeadCost) -> Memory:
    """What a rank holds in each phase of a step with ``choice``."""
    engine = engine_of(job, choice, network, head)
    base = _between_steps(job, choice, network, head, engine)
    forward = _with_casts(Parts(activations=network.forward_bytes), network)
    saved = _with_casts(Parts(activations=network.saved_bytes), network)
    sample = _sample(choice, head)
    in_step = base + sample + _gathered(choice, engine)
    mine = Parts(gradients=head.gradient_bytes if choice.placement == "sharded" else 0)
    carried = _carried(job, choice, engine) + (mine if job.accumulation > 1 else Parts())
    phases = {
        "between steps": base,
        "forward": in_step + forward + carried + _prefetched(choice, engine),
        "loss": in_step + saved + carried + _loss(job, choice, network, head),
        "backward": base + sample + mine + _backward(job, choice, network, head, engine),
        "reduction": base + sample + mine + _reduction(job, choice, engine),
        "update": base + sample + mine + _update(job, choice, head, engine),
    }
    return Memory(phases)


def _between_steps(
    job: Job, choice: Choice, network: NetworkCost, head: HeadCost, engine: Engine
) -> Parts:
    """What is always there."""
    whole, part = engine.bytes, engine.slice_bytes
    ahead = 1 if job.device == "cuda" else 0
    images = IMAGE_VALUES * job.rows * (job.accumulation + ahead)
    # The running statistics, their last good values, and the place where those are averaged.
    parts = Parts(loader=images, weights=2 * network.buffer_bytes)
    if choice.zero_stage == 0:
        parts += Parts(weights=whole, optimizer=job.moments * whole)
    elif choice.zero_stage < 3:
        parts += Parts(weights=whole, master=part, optimizer=job.moments * part)
    else:
        parts += Parts(weights=part + engine.persistent_bytes, master=part, gradients=part)
        parts += Parts(optimizer=job.moments * part, buckets=engine.bucket_bytes)
    if choice.placement == "sharded":
        mine = FLOAT_BYTES * sum(n for n, _ in head.weights)
        parts += Parts(weights=mine, optimizer=job.moments * mine)
    return parts


def _carried(job: Job, choice: Choice, engine: Engine) -> Parts:
    """Gradients of earlier micro-batches of the step."""
    if job.accumulation == 1 or choice.zero_stage == 3:
        return Parts()
    own = engine.own_tensors_bytes
    return Parts(gradients=engine.bytes if choice.zero_stage < 2 else own)


def _gathered(choice: Choice, engine: Engine) -> Parts:
    """Whole weights of stage 3, from forward to backward."""
    return Parts(gathered=engine.gathered_bytes if choice.zero_stage == 3 else 0)


def _gathered_still(network: NetworkCost, engine: Engine) -> Parts:
    """Those of them that are left where backward holds most; the head's went before."""
    if engine.ranks == 1 or engine.bytes > FLOAT_BYTES * LIVE_ELEMENTS:
        return Parts(gathered=engine.gathered_bytes)  # none, or they come anew in backward
    return Parts(gathered=network.backward_gathered_bytes - network.backward_freed_bytes)


def _prefetched(choice: Choice, engine: Engine) -> Parts:
    """Where stage 3 receives weights before each gets its place: a bucket, and what fills it."""
    if choice.zero_stage < 3 or engine.ranks == 1:
        return Parts()
    return Parts(buckets=min(engine.bytes, engine.bucket_bytes + engine.largest_bytes))


def _sample(choice: Choice, head: HeadCost) -> Parts:
    """Copies of the rows of a sharded head that a step is about."""
    if choice.sample_rate == 1.0:
        return Parts()
    return Parts(head=head.gradient_bytes)  # float32 too


def _loss(job: Job, choice: Choice, network: NetworkCost, head: HeadCost) -> Parts:
    """Head and loss, forward and backward, and what ranks tell each other about them."""
    if choice.placement == "replicated":
        return Parts(head=head.peak_bytes)
    rows = seen_rows(job, choice)
    told = 2 * FLOAT_BYTES * job.statistics  # as received, and unpacked
    states = job.ranks * (rows // job.images_per_pair) * (told + UNTOLD_BYTES[job.images_per_pair])
    peak = max(head.peak_bytes, head.forward_bytes + states)
    return Parts(head=peak, features=rows * job.embedding_dim * network.embedding_bytes)


def _backward(
    job: Job, choice: Choice, network: NetworkCost, head: HeadCost, engine: Engine
) -> Parts:
    """Activations as they go, gradients as they come."""
    stage, first_of_many = choice.zero_stage, job.accumulation > 1
    bucket = engine.bucket_bytes if stage in (1, 2) else 0
    if stage == 2 and job.device == "cuda":
        bucket *= 2
    parts = Parts(buckets=bucket) + _carried(job, choice, engine)
    inside = head.gradient_bytes if choice.placement == "replicated" else 0
    if stage < 2 and not first_of_many:
        parts += Parts(gradients=inside, activations=network.backward_kept_bytes)
    else:
        parts += Parts(activations=network.backward_freed_bytes)
    if stage == 3:
        parts += _gathered_still(network, engine)
    if stage == 2 and not first_of_many and engine.bytes > engine.bucket_bytes:
        parts += Parts(gradients=engine.own_tensors_bytes)
    return _with_casts(parts, network)


def _with_casts(parts: Parts, network: NetworkCost) -> Parts:
    """The copies of weights in lower precision as a part of their own."""
    return parts + Parts(casts=network.cast_bytes) - Parts(activations=network.cast_bytes)


def _reduction(job: Job, choice: Choice, engine: Engine) -> Parts:
    """After the last backward: gradients, and where those of several ranks are joined."""
    whole, own, bucket = engine.bytes, engine.own_tensors_bytes, engine.bucket_bytes
    if choice.zero_stage == 0:
        joined = min(whole, FLOAT_BYTES * ALL_REDUCE_ELEMENTS + engine.largest_bytes)
        return Parts(gradients=whole, buckets=joined if job.ranks > 1 else 0)
    if choice.zero_stage == 1:
        # Gradients move into the bucket, and from each full bucket to the owner.
        return Parts(gradients=max(whole, whole - bucket + own), buckets=bucket)
    return Parts(gradients=own, buckets=bucket) if choice.zero_stage == 2 else Parts()


def _update(job: Job, choice: Choice, head: HeadCost, engine: Engine) -> Parts:
    """The optimizer's step."""
    part = engine.slice_bytes
    if choice.zero_stage == 0:
        # On the CPU torch goes tensor by tensor, on CUDA over all at once.
        at_once = engine.largest_bytes if job.device == "cpu" else engine.bytes
        parts = Parts(gradients=engine.bytes, update=_temporaries(job, at_once))
    elif choice.zero_stage < 3:
        parts = Parts(gradients=engine.own_tensors_bytes + part, update=_temporaries(job, part))
    else:
        at_once = min(part, FLOAT_BYTES * LIVE_ELEMENTS)
        parts = Parts(gradients=at_once, update=_temporaries(job, at_once))
    if choice.sample_rate < 1.0:
        parts += Parts(update=job.moments * head.gradient_bytes)
    return parts


def _temporaries(job: Job, size: int) -> int:
    """What torch's optimizers hold besides, for ``size`` bytes of weights."""
    if job.optimizer == "sgd":
        return size if job.weight_decay else 0
    return 2 * size if job.device == "cpu" else size
