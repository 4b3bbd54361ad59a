"""Embeddings of photographs, for searching, clustering, and protocols of others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np
import torch

from distill.arrays import Floats
from distill.classify.faces import Preparing, lots_of_faces
from distill.data.batch import as_network_input
from distill.data.images import Pixels
from distill.finite import check_finite
from distill.models.both_ways import both_ways
from distill.trained import TrainedBackbone

SHORTEST = 1e-12
"""Length by which shorter embeddings are divided, as `torch.nn.functional.normalize` does."""


class Embedded(NamedTuple):
    """What the backbone makes of photographs.

    Attributes:
        photographs: those that were embedded, in the order asked for, N of them.
        embeddings: of unit length, (N, D).
        lengths: of the embeddings before that, (N,); short where a face is hard to see.
        unusable: the other photographs, each with the reason.
    """

    photographs: list[Path]
    embeddings: Floats
    lengths: Floats
    unusable: list[tuple[Path, str]]


class Embedding(Preparing, total=False):
    """How photographs become embeddings.

    Attributes:
        mirrored: add the embedding of the mirror image, as evaluations on `.bin` sets do.
        device: where to compute; the CPU if None or where nothing is said.
    """

    mirrored: bool
    device: torch.device | None


def embed_photographs(
    trained: TrainedBackbone, photographs: Collection[Path], **how: Unpack[Embedding]
) -> Embedded:
    """All of `embeddings_of` in one; the embeddings are in memory once, 4 N D bytes."""
    rows = np.empty((len(photographs), trained.config.model.embedding_dim), np.float32)
    lengths = np.empty(len(photographs), np.float32)
    used: list[Path] = []
    unusable: list[tuple[Path, str]] = []
    for lot in embeddings_of(trained, photographs, **how):
        place = slice(len(used), len(used) + len(lot.photographs))
        rows[place], lengths[place] = lot.embeddings, lot.lengths
        used += lot.photographs
        unusable += lot.unusable
    return Embedded(used, rows[: len(used)], lengths[: len(used)], unusable)


def embeddings_of(
    trained: TrainedBackbone,
    photographs: Collection[Path],
    *,
    mirrored: bool = False,
    device: torch.device | None = None,
    **how: Unpack[Preparing],
) -> Iterator[Embedded]:
    """Embed the one face in each photograph, a few photographs at a time.

    Lots come in the order of the photographs, while later ones are looked at, and nothing of them
    is kept.

    Args:
        trained: the backbone.
        photographs: files.
        mirrored: as of `Embedding`.
        device: as of `Embedding`.
        how: as of `Preparing`.

    Raises:
        UserError: the embeddings are not finite, or a worker process ended or was killed.
    """
    device = device or torch.device("cpu")
    trained.model.to(device)
    for paths, found in lots_of_faces(photographs, device, **how):
        both = list(zip(paths, found, strict=True))
        faces = [face for face in found if not isinstance(face, str)]
        rows = torch.empty(0, trained.config.model.embedding_dim)
        if faces:
            rows = _embedded(trained, faces, device, mirrored=mirrored)
        lengths = rows.norm(dim=1)
        rows = rows / lengths.clamp_min(SHORTEST).unsqueeze(1)
        yield Embedded(
            [path for path, face in both if not isinstance(face, str)],
            rows.numpy(),
            lengths.numpy(),
            [(path, face) for path, face in both if isinstance(face, str)],
        )


def _embedded(
    trained: TrainedBackbone, faces: Sequence[Pixels], device: torch.device, *, mirrored: bool
) -> torch.Tensor:
    """Embeddings of aligned faces, (N, D), not of unit length."""
    images = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous().to(device)
    with torch.inference_mode():
        if mirrored:
            found = both_ways(trained.model.backbone, images).sum(0)
        else:
            found = trained.model.backbone(as_network_input(images)).float()
    check_finite(found, "embeddings", "photographs", trained.origin)
    return found.cpu()
