"""What is asked of the planner, and what it knows of a network and its head; plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from distill.data.batch import IMAGE_SIZE

if TYPE_CHECKING:
    from distill.config import Config

Placement: TypeAlias = Literal["replicated", "sharded"]
Form: TypeAlias = Literal["plain", "fused"]

FLOAT_BYTES = 4
"""Weights, gradients and moments are float32 for every precision (see `distill.engine`)."""
IMAGE_VALUES = 3 * IMAGE_SIZE**2
"""Values of an image; a byte each where they come from the loader."""
PERSISTENT_ELEMENTS = 10**5
"""Weights smaller than this stay whole on every rank in stage 3."""


def device_of(config: Config) -> Literal["cpu", "cuda"]:
    """Where a planned run computes: on GPUs, unless its settings say otherwise."""
    return "cpu" if config.run.device == "cpu" else "cuda"


@dataclass(frozen=True)
class Job:
    """A step of training, and the ranks that share it.

    Attributes:
        classes: identities, C.
        embedding_dim: D.
        ranks: W.
        micro_pairs: pairs of one forward pass of one rank.
        accumulation: forward passes of a step.
        images_per_pair: 2, or 1 where only first images are used.
        precision: arithmetic of the network: fp32, bf16 or fp16.
        optimizer: sgd or adamw.
        moments: tensors that the optimizer keeps for each weight.
        weight_decay: whether there is any.
        device: cuda or cpu.
        bucket_elements: DeepSpeed's buckets hold at most so many.
        statistics: float32 numbers that each rank with a part of the head tells of a pair, or of an
            image where only first images are used.
    """

    classes: int
    embedding_dim: int
    ranks: int
    micro_pairs: int
    accumulation: int
    images_per_pair: int
    precision: str
    optimizer: str
    moments: int
    weight_decay: bool
    device: str
    bucket_elements: int
    statistics: int

    @property
    def rows(self) -> int:
        """Images of one forward pass of one rank, R."""
        return self.micro_pairs * self.images_per_pair

    @property
    def global_pairs(self) -> int:
        """Pairs of an optimizer step."""
        return self.micro_pairs * self.accumulation * self.ranks

    def accumulating(self, times: int) -> Job:
        """The same step in ``times`` as many forward passes."""
        return replace(
            self, micro_pairs=self.micro_pairs // times, accumulation=self.accumulation * times
        )

    def on_ranks(self, times: int) -> Job:
        """The same global batch on ``times`` as many ranks."""
        return replace(self, micro_pairs=self.micro_pairs // times, ranks=self.ranks * times)


@dataclass(frozen=True)
class Choice:
    """What the planner compares.

    Attributes:
        zero_stage: 0 to 3.
        placement: whether the head is part of the network or shared out by classes.
        form: whether the scores of all classes are stored.
        sample_rate: share of the classes in a step; below 1 for sharded heads only.
    """

    zero_stage: int
    placement: Placement
    form: Form
    sample_rate: float = 1.0

    @property
    def overrides(self) -> list[str]:
        """The settings that make it."""
        words = [f"train.zero_stage={self.zero_stage}", f"head.placement={self.placement}"]
        words.append(f"loss.form={self.form}")
        rate = [f"head.sample_rate={self.sample_rate:g}"] if self.placement == "sharded" else []
        return words + rate


@dataclass(frozen=True)
class NetworkCost:
    """A backbone, for a given number of images; all bytes are of one rank and one forward pass.

    Attributes:
        weights: elements of each parameter, in the order of the module, and whether it decays.
        buffer_bytes: running statistics.
        embedding_bytes: of one number of an embedding.
        forward_bytes: most alive in forward.
        saved_bytes: alive after forward: what backward needs, lower-precision weights included.
        cast_bytes: those lower-precision copies of weights; 0 where blocks are made again.
        backward_kept_bytes: most alive in backward where gradients stay.
        backward_freed_bytes: the same where each is taken away as soon as it is there.
        backward_gathered_bytes: the same with the weights that stage 3 has made whole in forward,
            each of which goes with its gradient.
        flops: of forward and backward.
        moved_bytes: that operators read and write in forward and backward.
    """

    weights: tuple[tuple[int, bool], ...]
    buffer_bytes: int
    embedding_bytes: int
    forward_bytes: int
    saved_bytes: int
    cast_bytes: int
    backward_kept_bytes: int
    backward_freed_bytes: int
    backward_gathered_bytes: int
    flops: float
    moved_bytes: float


@dataclass(frozen=True)
class HeadCost:
    """Head and loss of one forward pass; bytes of one rank, without the head's own weight.

    Attributes:
        weights: elements of each parameter on this rank, and whether it decays.
        forward_bytes: alive after forward.
        peak_bytes: most alive, the gradient of the weight included.
        gradient_bytes: of the gradient of the weights that a step is about, on this rank.
        flops: of forward and backward.
        moved_bytes: that operators read and write.
        low_precision: whether the products are made in the precision of the network.
    """

    weights: tuple[tuple[int, bool], ...]
    forward_bytes: int
    peak_bytes: int
    gradient_bytes: int
    flops: float
    moved_bytes: float
    low_precision: bool


def local_classes(job: Job, choice: Choice) -> int:
    """Classes of the rank that has most of them."""
    return job.classes if choice.placement == "replicated" else -(-job.classes // job.ranks)


def sampled_classes(job: Job, choice: Choice) -> int:
    """Classes of that rank in a step, those of the batch aside."""
    return math.ceil(choice.sample_rate * local_classes(job, choice))


def seen_rows(job: Job, choice: Choice) -> int:
    """Embeddings that the head of a rank sees: its own, or those of all ranks."""
    return job.rows * (job.ranks if choice.placement == "sharded" else 1)
