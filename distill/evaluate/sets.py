"""Verification sets that others measure on too: ``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin``.

An embedding is that of the image plus that of its mirror image, made unit length, as InsightFace's
evaluation has it. All ranks share the images; every rank gets the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from distill.data.faces import resized
from distill.data.images import Pixels, Unusable, decode
from distill.data.order import Share, evaluation_slice
from distill.data.verification_set import VerificationSet
from distill.errors import UserError
from distill.evaluate.embed import gather_rows
from distill.evaluate.protocol import FOLDS, published_accuracy
from distill.evaluate.report import Condition, Verification
from distill.evaluate.verify import measure
from distill.models.both_ways import both_ways
from distill.ranks import Ranks, gather_objects, together


@dataclass(frozen=True)
class SetResult:
    """What was measured on one set.

    Attributes:
        name: of the file, without its ending.
        pairs: in it.
        mean_length: of the embeddings before they are made unit length.
        verification: its `accuracy` is the one that is published for such sets.
    """

    name: str
    pairs: int
    mean_length: float
    verification: Verification

    @property
    def condition(self) -> Condition:
        """The same as a condition without identification, for pictures and scalars."""
        return Condition(self.name, None, self.verification)


def evaluate_sets(
    backbone: nn.Module,
    sets: Sequence[VerificationSet],
    ranks: Ranks,
    *,
    batch_images: int,
    advance: Callable[[int], None] = lambda images: None,
) -> list[SetResult]:
    """Verification on each set; weights, mode and running statistics stay as they are.

    Args:
        backbone: images (N, 3, 112, 112) in [-1, 1] to embeddings (N, D); equal on all ranks.
        sets: the same on all ranks.
        ranks: this process among the ranks.
        batch_images: images of one forward pass; their mirror images are another.
        advance: told the number of images of each batch that is done with.

    Raises:
        UserError: an image cannot be used, or embeddings are not finite; on all ranks.
    """
    training = backbone.training
    backbone.eval()
    try:
        return [
            result_of(found, *embeddings_of(backbone, found, ranks, batch_images, advance))
            for found in sets
        ]
    finally:
        backbone.train(training)


def embeddings_of(
    backbone: nn.Module,
    found: VerificationSet,
    ranks: Ranks,
    batch_images: int,
    advance: Callable[[int], None],
) -> tuple[torch.Tensor, float]:
    """Sums of the embeddings of image and mirror image, (2P, D), and their mean length."""
    share = evaluation_slice(len(found.images), Share(ranks.rank, ranks.world_size)).tolist()
    sums, lengths = [torch.zeros(0, 0)], torch.zeros(2, dtype=torch.float64)
    with together(), torch.inference_mode():
        for start in range(0, len(share), batch_images):
            images = batch(found, share[start : start + batch_images]).to(ranks.device)
            both = both_ways(backbone, images)
            sums.append(both.sum(0).cpu())
            lengths += torch.tensor([both.norm(dim=2).double().sum(), 2 * len(images)])
            advance(len(images))
    mine = torch.cat([part for part in sums if len(part)] or sums)
    total, count = np.sum(gather_objects(lengths.tolist()), 0)
    return gathered(mine, ranks.device), float(total / count)


def batch(found: VerificationSet, numbers: Sequence[int]) -> torch.Tensor:
    """Images of a set, (N, 3, 112, 112) uint8.

    Raises:
        UserError: one of them cannot be used.
    """
    faces = np.stack([face(found, number) for number in numbers])
    return torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous()


def face(found: VerificationSet, number: int) -> Pixels:
    """One image of a set at 112x112; without it the numbers would be of another set."""
    try:
        return resized(decode(found.image(number)))
    except Unusable as fault:
        raise UserError(
            f"{found.path}: image {number} (pair {number // 2}): {fault.reason}",
            fix="get the file anew; `pairdistill inspect` lists all that is damaged",
        ) from None


def gathered(mine: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The rows of all ranks, (N, D), in rank order; a rank may have none."""
    shapes = gather_objects(list(mine.shape))
    if len(shapes) == 1:
        return mine
    width = max(width for _, width in shapes)
    return gather_rows(mine.reshape(len(mine), width), [rows for rows, _ in shapes], device)


def result_of(found: VerificationSet, sums: torch.Tensor, mean_length: float) -> SetResult:
    """All numbers of one set.

    Raises:
        UserError: embeddings are not finite.
    """
    broken = int((~sums.isfinite().all(1)).sum())
    if broken:
        raise UserError(
            f"{found.path}: the embeddings of {broken} of {len(sums)} images are not finite",
            fix="the weights have diverged: evaluate an older checkpoint, or train at a lower lr",
        )
    unit = torch.nn.functional.normalize(sums.double())
    distances = (unit[0::2] - unit[1::2]).square().sum(1).numpy()
    same = np.array(found.same)
    scores = 1 - distances / 2  # the cosine
    counts = {"genuine_total": int(same.sum()), "impostor_total": int((~same).sum())}
    verified = measure(scores[same], scores[~same], **counts)
    return SetResult(
        found.path.stem, len(same), mean_length, with_published(verified, distances, same)
    )


def with_published(verified: Verification, distances: np.ndarray, same: np.ndarray) -> Verification:
    """The same, with the accuracy that is published for such sets, where ten runs are possible."""
    reasons = {name: why for name, why in verified.reasons.items() if name != "accuracy"}
    if len(same) < FOLDS:
        reasons["accuracy"] = f"{FOLDS} runs need {FOLDS} pairs; there are {len(same)}"
        return replace(verified, accuracy=None, accuracy_std=None, reasons=reasons)
    accuracy, spread = published_accuracy(distances, same)
    return replace(verified, accuracy=accuracy, accuracy_std=spread, reasons=reasons)
