"""Embeddings of photographs, for searching, clustering, and protocols of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from distill.arrays import Floats
from distill.classify.answers import BATCH_PHOTOGRAPHS, chunks, face_or_reason
from distill.data.batch import as_network_input
from distill.data.detector import FaceDetector
from distill.data.images import Pixels
from distill.files import whole_files
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


def embed_photographs(
    trained: TrainedBackbone,
    photographs: Sequence[Path],
    *,
    aligned: bool = False,
    mirrored: bool = False,
    device: torch.device | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Embedded:
    """Embed the one face in each photograph; the embeddings are in memory once, 4 N D bytes.

    Args:
        trained: the backbone.
        photographs: files.
        aligned: they are aligned faces already: no detection.
        mirrored: add the embedding of the mirror image, as evaluations on `.bin` sets do.
        device: where to compute; the CPU if None.
        advance: called after each photograph.

    Raises:
        UserError: the embeddings are not finite.
    """
    detector = None if aligned else FaceDetector()
    device = device or torch.device("cpu")
    trained.model.to(device)
    used: list[Path] = []
    rows = torch.empty(len(photographs), trained.config.model.embedding_dim)
    unusable: list[tuple[Path, str]] = []
    for part in chunks(photographs, BATCH_PHOTOGRAPHS):
        faces: list[Pixels] = []
        for path in part:
            face = face_or_reason(path, detector)
            if isinstance(face, str):
                unusable.append((path, face))
            else:
                used.append(path)
                faces.append(face)
            advance()
        if faces:
            found = _embedded(trained, faces, device, mirrored=mirrored)
            rows[len(used) - len(faces) : len(used)] = found
    rows = rows[: len(used)]
    lengths = rows.norm(dim=1)
    rows /= lengths.clamp_min(SHORTEST).unsqueeze(1)
    return Embedded(used, rows.numpy(), lengths.numpy(), unusable)


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


def write_npz(found: Embedded, out: Path) -> None:
    """The arrays of ``found`` as numpy's ``.npz``; numbers and text, which need no pickle.

    Raises:
        UserError: the disk is full or the folder not writable; nothing is left behind.
    """
    with whole_files(out) as folder, (folder / out.name).open("wb") as file:
        np.savez(
            file,
            photographs=_text([str(path) for path in found.photographs]),
            embeddings=found.embeddings,
            lengths=found.lengths,
            unusable=_text([str(path) for path, _ in found.unusable]),
            reasons=_text([reason for _, reason in found.unusable]),
        )


def _text(lines: list[str]) -> npt.NDArray[np.str_]:
    return np.array(lines, dtype=np.str_)
