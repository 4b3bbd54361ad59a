"""Who is in each photograph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from distill.classify.photographs import NotOneFace, aligned_face, find_photographs
from distill.data.batch import as_network_input
from distill.data.detector import FaceDetector
from distill.data.images import Pixels, Unusable
from distill.data.not_photographs import file_known_as
from distill.finite import check_finite
from distill.trained import Trained, restore

OK = "ok"
BATCH_PHOTOGRAPHS = 32


@dataclass(frozen=True)
class Answer:
    """One row: a photograph, and who is in it.

    Attributes:
        photograph: its path, as it was named or found.
        status: "ok"; or "no face", "2 faces", "unreadable: …", and then the rest is empty.
        top: the most probable people, surest first, each with a probability.
    """

    photograph: Path
    status: str
    top: tuple[tuple[str, float], ...] = ()

    @property
    def person(self) -> str | None:
        """The most probable person."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """The probability of `person`, in [0, 1]."""
        return self.top[0][1] if self.top else None


def classify(
    weights: Path, photographs: Sequence[Path], *, aligned: bool = False, top: int = 3
) -> list[Answer]:
    """Who is in each of ``photographs``: `restore`, `find_photographs` and `ask` in one.

    Args:
        weights: a run folder, a checkpoint, or a ``model.safetensors``.
        photographs: files, and folders of files.
        aligned: they are aligned faces already: no detection.
        top: how many people to name.

    Raises:
        UserError: no good weights there, or a folder without photographs.
    """
    return ask(restore(weights), find_photographs(photographs), aligned=aligned, top=top)


def ask(
    trained: Trained,
    photographs: Sequence[Path],
    *,
    aligned: bool = False,
    top: int = 3,
    device: torch.device | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """One row for each photograph, in the same order; a bad one has a row that says what is wrong.

    Args:
        trained: the classifier and the names of its people.
        photographs: files.
        aligned: they are aligned faces already: no detection.
        top: how many people to name.
        device: where to compute; the CPU if None.
        advance: called after each photograph.
    """
    detector = None if aligned else FaceDetector()
    device = device or torch.device("cpu")
    trained.model.to(device)
    answers: list[Answer] = []
    for part in chunks(photographs, BATCH_PHOTOGRAPHS):
        found: list[Pixels | str] = []
        for path in part:
            found.append(face_or_reason(path, detector))
            advance()
        named = iter(
            name_people(trained, [f for f in found if not isinstance(f, str)], top, device)
        )
        answers += [
            Answer(path, face) if isinstance(face, str) else Answer(path, OK, next(named))
            for path, face in zip(part, found, strict=True)
        ]
    return answers


def face_or_reason(path: Path, detector: FaceDetector | None) -> Pixels | str:
    """The aligned face, or why there is none."""
    try:
        return aligned_face(path, detector)
    except NotOneFace as reason:
        return str(reason)
    except Unusable as fault:
        return f"unreadable: {file_known_as(path) or fault.reason}"


def name_people(
    trained: Trained, faces: Sequence[Pixels], top: int, device: torch.device
) -> list[tuple[tuple[str, float], ...]]:
    """The ``top`` most probable people of each aligned face, with probabilities.

    Raises:
        UserError: the answers are not finite.
    """
    if not faces:
        return []
    images = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous().to(device)
    with torch.inference_mode():
        embeddings = trained.model.backbone(as_network_input(images))
        probabilities = trained.model.logits(embeddings).softmax(1)
    check_finite(probabilities, "answers", "photographs", trained.origin)
    best = probabilities.topk(min(top, probabilities.shape[1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        tuple((trained.identities[c], p) for c, p in zip(classes, shares, strict=True))
        for classes, shares in rows
    ]


def chunks(items: Iterable[Path], size: int) -> Iterator[list[Path]]:
    """``items`` in lists of ``size``, the last one shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
