"""What a loader hands to a training or evaluation step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

IMAGE_SIZE = 112
"""Height and width of an aligned face, in pixels."""


@dataclass(frozen=True)
class PairBatch:
    """B pairs of images of the same person, owned by the receiver (never a ring buffer).

    Attributes:
        first: sample images, (B, 3, 112, 112) uint8, RGB.
        second: processed images of the same people, (B, 3, 112, 112) uint8, RGB; None where only
            first images were asked for.
        labels: identities, (B,) int64 in [0, C).
        kinds: index into the pack's list of second-image kinds, (B,) int64; without meaning where
            second images could have been made and were not.
        sample_ids: place of each pair in the pack, (B,) int64.
    """

    first: torch.Tensor
    second: torch.Tensor | None
    labels: torch.Tensor
    kinds: torch.Tensor
    sample_ids: torch.Tensor

    def to(self, device: torch.device) -> PairBatch:
        """The same pairs on ``device`` (asynchronous where the source is pinned)."""
        second = None if self.second is None else self.second.to(device, non_blocking=True)
        others = (self.labels, self.kinds, self.sample_ids)
        first, *numbers = (t.to(device, non_blocking=True) for t in (self.first, *others))
        return PairBatch(first, second, *numbers)

    @property
    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """First and second images of a batch that has both."""
        assert self.second is not None, "only first images were asked for"
        return self.first, self.second

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that the batch holds."""
        return [part for part in vars(self).values() if part is not None]

    def __len__(self) -> int:
        return self.labels.shape[0]


class OrderState(NamedTuple):
    """A place in the order of samples, independent of the number of ranks.

    Attributes:
        epoch: passes finished.
        consumed: pairs used so far in this epoch, over all ranks.
    """

    epoch: int
    consumed: int


def as_network_input(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """uint8 RGB in [0, 255] to ``dtype`` in [-1, 1], the range ArcFace backbones are trained on.

    (N, 3, H, W) whose channels lie side by side in memory: convolutions keep that order, and take
    up to 21% less time on CPUs (`docs/log.md`); on GPUs it is the order of their matrix units
    (https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html).
    """
    pixels = images.to(dtype, copy=True, memory_format=torch.channels_last)
    return pixels.sub_(127.5).div_(127.5)
