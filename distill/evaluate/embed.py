"""The network on every held-out image: each rank takes its share, and all of them know the results.

The evaluation pack holds, photograph by photograph, one pair for each kind: first the clean image,
second the processed one. So the clean image of pair i is photograph i // kinds, embedded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from distill.collectives import gathered_rows, together
from distill.data.batch import PairBatch, as_network_input
from distill.heads.answers import Answers
from distill.models.classifier import PairClassifier, ShardedClassifier

CLEAN_KIND = -1

Network = PairClassifier | ShardedClassifier


@dataclass(frozen=True)
class Probes:
    """What the network says of N images.

    Attributes:
        photographs: number of the photograph each image comes from, (N,) int64.
        kinds: index of the processing, (N,) int64; -1 for none.
        labels: identity in the pack, (N,) int64.
        predicted: most probable class of the classifier, (N,) int64.
        places: how many classes are more probable than the right one, (N,) int64; C where the
            classifier does not know the person.
        probabilities: of the right class, (N,) float32; 0 where it is not known.
        embeddings: of unit length, (N, D) float32.
    """

    photographs: torch.Tensor
    kinds: torch.Tensor
    labels: torch.Tensor
    predicted: torch.Tensor
    places: torch.Tensor
    probabilities: torch.Tensor
    embeddings: torch.Tensor

    def select(self, which: torch.Tensor) -> Probes:
        """The rows that ``which`` (mask or indices) picks."""
        return Probes(*(getattr(self, f.name)[which] for f in fields(self)))

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The embeddings as an array."""
        vectors: npt.NDArray[np.float32] = self.embeddings.numpy()
        return vectors

    def __len__(self) -> int:
        return self.labels.shape[0]


def embed(
    model: Network,
    batches: Iterable[PairBatch],
    *,
    kinds: int,
    classes_of: torch.Tensor,
    device: torch.device,
) -> Probes:
    """Embed the pairs of this rank, then gather those of all ranks.

    Args:
        model: in evaluation mode.
        batches: the share of this rank; may be empty.
        kinds: number of kinds in the pack, hence pairs of each photograph.
        classes_of: class of the classifier for each identity of the pack, -1 where it has none.
        device: where the model is.

    Returns:
        All images in the order of kind (clean first) and photograph, the same on every rank.
    """
    # a corrupt image stops all ranks, not one of them, with the others waiting for it
    with together(), torch.inference_mode():
        parts = [embed_batch(model, batch, kinds, device) for batch in batches]
    mine = Seen.concatenated(parts)
    with torch.inference_mode():
        found = model.answers(mine.embeddings, classes_of[mine.labels])
    return in_order(gather(mine.answered(found)))


class Seen(NamedTuple):
    """Images before the classifier is asked who they are; as `Probes`, embeddings of any length."""

    photographs: torch.Tensor
    kinds: torch.Tensor
    labels: torch.Tensor
    embeddings: torch.Tensor

    @classmethod
    def concatenated(cls, parts: list[Seen]) -> Seen:
        """The rows of all parts, one after the other; a rank may have none."""
        none = torch.zeros(0, dtype=torch.int64)
        if not parts:
            return cls(none, none, none, torch.zeros(0, 0))
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def answered(self, found: Answers) -> Probes:
        """With what the classifier says."""
        return Probes(
            self.photographs,
            self.kinds,
            self.labels,
            found.predicted,
            found.places,
            found.probabilities,
            torch.nn.functional.normalize(self.embeddings),
        )


def embed_batch(model: Network, batch: PairBatch, kinds: int, device: torch.device) -> Seen:
    """The images of one batch: the clean ones that come up first here, and all processed ones."""
    photographs = batch.sample_ids // kinds
    leads = batch.sample_ids % kinds == 0
    first, second = batch.both
    images = torch.cat([first[leads], second]).to(device)
    return Seen(
        photographs=torch.cat([photographs[leads], photographs]),
        kinds=torch.cat([torch.full_like(photographs[leads], CLEAN_KIND), batch.kinds]),
        labels=torch.cat([batch.labels[leads], batch.labels]),
        embeddings=model.backbone(as_network_input(images)).float().cpu(),
    )


def in_order(probes: Probes) -> Probes:
    """Rows sorted by kind, then by photograph, whatever rank they came from."""
    order = np.lexsort((probes.photographs.numpy(), probes.kinds.numpy()))
    return probes.select(torch.from_numpy(order))


def gather(mine: Probes) -> Probes:
    """The rows of all ranks in rank order, on every rank; some may have none."""
    return Probes(*gathered_rows(*(getattr(mine, f.name) for f in fields(Probes))))


def counted(batches: Iterable[PairBatch], advance: Callable[[int], None]) -> Iterator[PairBatch]:
    """The same batches, telling ``advance`` how many pairs each had when it is done with."""
    for batch in batches:
        yield batch
        advance(len(batch))
