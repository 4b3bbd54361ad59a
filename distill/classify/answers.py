"""Who is in each photograph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import torch

from distill.classify.faces import Preparing, lots_of_faces
from distill.classify.photographs import photographs_at
from distill.data.batch import as_network_input
from distill.data.images import Pixels
from distill.finite import check_finite
from distill.trained import Trained, restore

OK = "ok"


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


class Asking(Preparing, total=False):
    """How photographs become answers.

    Attributes:
        top: how many people to name; 3 where nothing is said.
        device: where to compute; the CPU if None or where nothing is said.
    """

    top: int
    device: torch.device | None


def classify(weights: Path, photographs: Sequence[Path], **how: Unpack[Asking]) -> list[Answer]:
    """Who is in each of ``photographs``: `restore`, `photographs_at` and `ask` in one.

    Args:
        weights: a run folder, a checkpoint, or a ``model.safetensors``.
        photographs: files, and folders of files.
        how: see `Asking` and `Preparing`.

    Raises:
        UserError: no good weights there, a folder without photographs, or as of `answers_of`.
    """
    return ask(restore(weights), photographs_at(photographs), **how)


def ask(trained: Trained, photographs: Collection[Path], **how: Unpack[Asking]) -> list[Answer]:
    """All of `answers_of`, in memory."""
    return list(answers_of(trained, photographs, **how))


def answers_of(
    trained: Trained,
    photographs: Collection[Path],
    *,
    top: int = 3,
    device: torch.device | None = None,
    **how: Unpack[Preparing],
) -> Iterator[Answer]:
    """One row for each photograph, in the same order; a bad one has a row that says what is wrong.

    Rows come while later photographs are looked at, and nothing of them is kept.

    Args:
        trained: the classifier and the names of its people.
        photographs: files.
        top: as of `Asking`.
        device: as of `Asking`.
        how: as of `Preparing`.

    Raises:
        UserError: the answers are not finite, or a worker process ended or was killed.
    """
    device = device or torch.device("cpu")
    trained.model.to(device)
    for paths, found in lots_of_faces(photographs, device, **how):
        faces = [face for face in found if not isinstance(face, str)]
        named = iter(name_people(trained, faces, top, device))
        for path, face in zip(paths, found, strict=True):
            yield Answer(path, face) if isinstance(face, str) else Answer(path, OK, next(named))


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
