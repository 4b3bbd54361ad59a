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
        second: processed images of the same people, (B, 3, 112, 112) uint8, RGB.
        labels: identities, (B,) int64 in [0, C).
        kinds: index into the pack's list of second-image kinds, (B,) int64.
        sample_ids: place of each pair in the pack, (B,) int64.
    """

    first: torch.Tensor
    second: torch.Tensor
    labels: torch.Tensor
    kinds: torch.Tensor
    sample_ids: torch.Tensor

    def to(self, device: torch.device) -> PairBatch:
        """The same pairs on ``device`` (asynchronous where the source is pinned)."""
        fields = (self.first, self.second, self.labels, self.kinds, self.sample_ids)
        return PairBatch(*(t.to(device, non_blocking=True) for t in fields))

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
    """uint8 RGB in [0, 255] to ``dtype`` in [-1, 1], the range ArcFace backbones are trained on."""
    return images.to(dtype, copy=True).sub_(127.5).div_(127.5)
