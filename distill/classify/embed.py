"""Embeddings of photographs, for searching, clustering, and protocols of others."""

from __future__ import annotations

import io
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
from distill.finite import check_finite
from distill.models.both_ways import both_ways
from distill.trained import TrainedBackbone


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
    """Embed the one face in each photograph.

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
    rows: list[torch.Tensor] = []
    unusable: list[tuple[Path, str]] = []
    for part in chunks(photographs, BATCH_PHOTOGRAPHS):
        faces: list[Pixels] = []
        for path in part:
            found = face_or_reason(path, detector)
            if isinstance(found, str):
                unusable.append((path, found))
            else:
                used.append(path)
                faces.append(found)
            advance()
        if faces:
            rows.append(_embedded(trained, faces, device, mirrored=mirrored))
    raw = torch.cat(rows) if rows else torch.zeros(0, trained.config.model.embedding_dim)
    unit = torch.nn.functional.normalize(raw)
    return Embedded(used, unit.numpy(), raw.norm(dim=1).numpy(), unusable)


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


def as_npz(found: Embedded) -> bytes:
    """The arrays of ``found`` as numpy's ``.npz``; numbers and text, which need no pickle."""
    out = io.BytesIO()
    np.savez(
        out,
        photographs=_text([str(path) for path in found.photographs]),
        embeddings=found.embeddings,
        lengths=found.lengths,
        unusable=_text([str(path) for path, _ in found.unusable]),
        reasons=_text([reason for _, reason in found.unusable]),
    )
    return out.getvalue()


def _text(lines: list[str]) -> npt.NDArray[np.str_]:
    return np.array(lines, dtype=np.str_)
