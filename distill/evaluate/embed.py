"""The network on every held-out image: each rank takes its share, and all of them know the results.

The evaluation pack holds, photograph by photograph, one pair for each kind: first the clean image,
second the processed one. So the clean image of pair i is photograph i // kinds, embedded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from distill.data.batch import PairBatch, as_network_input
from distill.models.classifier import ClassifierOutput
from distill.ranks import gather_objects, together

CLEAN_KIND = -1


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
    model: nn.Module,
    batches: Iterable[PairBatch],
    *,
    kinds: int,
    classes_of: torch.Tensor,
    device: torch.device,
) -> Probes:
    """Embed the pairs of this rank, then gather those of all ranks.

    Args:
        model: a `PairClassifier` in evaluation mode.
        batches: the share of this rank; may be empty.
        kinds: number of kinds in the pack, hence pairs of each photograph.
        classes_of: class of the classifier for each identity of the pack, -1 where it has none.
        device: where the model is.

    Returns:
        All images in the order of kind (clean first) and photograph, the same on every rank.
    """
    # a corrupt image stops all ranks, not one of them, with the others waiting for it
    with together(), torch.inference_mode():
        parts = [embed_batch(model, batch, kinds, classes_of, device) for batch in batches]
    mine = concatenate(parts) if parts else None
    return in_order(gather(mine, device))


def embed_batch(
    model: nn.Module, batch: PairBatch, kinds: int, classes_of: torch.Tensor, device: torch.device
) -> Probes:
    """The images of one batch: the clean ones that come up first here, and all processed ones."""
    photographs = batch.sample_ids // kinds
    leads = batch.sample_ids % kinds == 0
    images = torch.cat([batch.first[leads], batch.second]).to(device)
    labels = torch.cat([batch.labels[leads], batch.labels])
    output: ClassifierOutput = model(as_network_input(images))
    predicted, places, probabilities = answers(output.logits.float(), classes_of[labels].to(device))
    return Probes(
        photographs=torch.cat([photographs[leads], photographs]),
        kinds=torch.cat([torch.full_like(photographs[leads], CLEAN_KIND), batch.kinds]),
        labels=labels,
        predicted=predicted,
        places=places,
        probabilities=probabilities,
        embeddings=torch.nn.functional.normalize(output.embeddings.float()).cpu(),
    )


def answers(
    logits: torch.Tensor, classes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Most probable class, place of the right class and its probability, each (N,) on the CPU.

    Equal logits count against the right class, so a constant answer earns nothing.

    Args:
        logits: (N, C).
        classes: (N,) right class, or -1 for a person that the classifier does not know.
    """
    known, own = classes >= 0, classes.clamp_min(0)[:, None]
    right = logits.gather(1, own)
    places = (logits >= right).sum(1) - 1
    probabilities = logits.softmax(1).gather(1, own)[:, 0] * known
    places = torch.where(known, places, logits.shape[1])
    return logits.argmax(1).cpu(), places.cpu(), probabilities.cpu()


def concatenate(parts: list[Probes]) -> Probes:
    """The rows of all parts, one after the other."""
    return Probes(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Probes)))


def in_order(probes: Probes) -> Probes:
    """Rows sorted by kind, then by photograph, whatever rank they came from."""
    order = np.lexsort((probes.photographs.numpy(), probes.kinds.numpy()))
    return probes.select(torch.from_numpy(order))


def gather(mine: Probes | None, device: torch.device) -> Probes:
    """The rows of all ranks in rank order, on every rank; ``mine`` may be missing on some."""
    counts = gather_objects([len(mine), mine.embeddings.shape[1]] if mine else [0, 0])
    if len(counts) == 1:
        assert mine is not None, "an evaluation pack is never empty"
        return mine
    rows, width = [count for count, _ in counts], max(width for _, width in counts)
    mine = mine or nothing(width)
    return Probes(*(gather_rows(getattr(mine, f.name), rows, device) for f in fields(Probes)))


def gather_rows(mine: torch.Tensor, rows: list[int], device: torch.device) -> torch.Tensor:
    """One tensor of each rank, with ``rows`` rows, one after the other; on the CPU."""
    where = device if dist.get_backend() == "nccl" else torch.device("cpu")
    padded = torch.zeros((max(rows), *mine.shape[1:]), dtype=mine.dtype, device=where)
    padded[: len(mine)] = mine.to(where)
    parts = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count].cpu() for part, count in zip(parts, rows, strict=True)])


def nothing(width: int) -> Probes:
    """No rows, with embeddings of ``width``."""
    none = torch.zeros(0, dtype=torch.int64)
    return Probes(none, none, none, none, none, torch.zeros(0), torch.zeros(0, width))


def counted(batches: Iterable[PairBatch], advance: Callable[[int], None]) -> Iterator[PairBatch]:
    """The same batches, telling ``advance`` how many pairs each had when it is done with."""
    for batch in batches:
        yield batch
        advance(len(batch))
