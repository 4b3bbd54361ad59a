"""A setting of ours with its origin, and what a step is made of."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from distill.migrate.given import Given

Images = Literal["first", "pair"]


class Setting(NamedTuple):
    """A value of ours, and where it comes from."""

    value: Any
    origin: str


Settings = dict[str, Setting]
"""Of a section, by name."""


class Batch(NamedTuple):
    """What a step is made of.

    Attributes:
        pairs_a_pass: over all GPUs; with first images alone, a pair is one image.
        passes: whose gradients make one update, K.
        origin: where the numbers come from.
    """

    pairs_a_pass: int
    passes: int
    origin: str

    @property
    def pairs(self) -> int:
        """Of one update."""
        return self.pairs_a_pass * self.passes


def batch_of(given: Given, ranks: int, images: Images) -> Batch:
    """The images of a step on ``ranks`` GPUs.

    Raises:
        UserError: they are no pairs.
    """
    a_gpu, passes = given.whole("batch_size", 1), given.whole("gradient_acc", 1)
    origin = f"{given.words('batch_size')} on {ranks} GPU{'s' if ranks > 1 else ''}"
    if passes > 1:
        origin += f", {given.words('gradient_acc')}"
    if images == "first":
        return Batch(a_gpu * ranks, passes, origin)
    if a_gpu % 2:
        raise given.wrong(
            "batch_size",
            "an odd number of images is no number of pairs",
            "make it even, or take first images alone: --images first",
        )
    return Batch(a_gpu // 2 * ranks, passes, f"{origin}, two images a pair")
