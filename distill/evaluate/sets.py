"""Verification sets that others measure on too: ``lfw.bin``, LFW's ``pairs.txt``, IJB-C.

An embedding is that of the image plus that of its mirror image, made unit length, as InsightFace's
evaluation has it. All ranks share the images; every rank gets the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from distill.collectives import gathered_rows, together
from distill.data.protocols.found import AnySet
from distill.data.protocols.ijb import TemplateSet
from distill.data.protocols.kinds import PairSet
from distill.evaluate.mirrored import Embedder, Totals
from distill.evaluate.protocol import published_accuracy
from distill.evaluate.report import Condition, Verification
from distill.evaluate.templates import TemplateResult, evaluate_templates
from distill.evaluate.verify import measure
from distill.finite import check_finite
from distill.ranks import Ranks


@dataclass(frozen=True)
class SetResult:
    """What was measured on one set.

    Attributes:
        name: of the set.
        pairs: in it.
        mean_length: of the embeddings before they are made unit length.
        verification: its `accuracy` is the one that is published for such sets.
        not_found: images in which no face was found, and the middle was taken.
    """

    name: str
    pairs: int
    mean_length: float
    verification: Verification
    not_found: int = 0

    @property
    def condition(self) -> Condition:
        """The same as a condition without identification, for pictures and scalars."""
        return Condition(self.name, None, self.verification)


AnyResult = SetResult | TemplateResult


def evaluate_sets(
    backbone: nn.Module,
    sets: Sequence[AnySet],
    ranks: Ranks,
    *,
    batch_images: int,
    advance: Callable[[int], None] = lambda images: None,
) -> list[AnyResult]:
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
        embedder = Embedder(backbone, ranks, batch_images, advance)
        return [
            evaluate_templates(found, embedder)
            if isinstance(found, TemplateSet)
            else evaluate_pairs(found, embedder)
            for found in sets
        ]
    finally:
        backbone.train(training)


def evaluate_pairs(found: PairSet, embedder: Embedder) -> SetResult:
    """The numbers of a set of pairs, on every rank."""
    sums = [torch.zeros(0, 0)]
    with together():
        for part in embedder.parts(found):
            sums.append(part.both.sum(0).cpu())
    mine = torch.cat([part for part in sums if len(part)] or sums)
    totals = embedder.totals()
    (everyones,) = gathered_rows(mine)
    return result_of(found, everyones, totals)


def result_of(found: PairSet, sums: torch.Tensor, totals: Totals) -> SetResult:
    """All numbers of one set.

    Raises:
        UserError: embeddings are not finite.
    """
    check_finite(sums, "embeddings", "images", found.path)
    unit = torch.nn.functional.normalize(sums.double())
    pairs = torch.from_numpy(found.pairs)
    distances = (unit[pairs[:, 0]] - unit[pairs[:, 1]]).square().sum(1).numpy()
    same = np.array(found.same)
    scores = 1 - distances / 2  # the cosine
    counts = {"genuine_total": int(same.sum()), "impostor_total": int((~same).sum())}
    verified = measure(scores[same], scores[~same], **counts)
    verified = with_published(verified, distances, same, found.folds)
    return SetResult(found.name, len(same), totals.mean_length, verified, totals.not_found)


def with_published(
    verified: Verification, distances: np.ndarray, same: np.ndarray, folds: int
) -> Verification:
    """The same, with the accuracy that is published for such sets, where its runs are possible."""
    reasons = {name: why for name, why in verified.reasons.items() if name != "accuracy"}
    if len(same) < folds or folds < 2:
        needed = f"{folds} runs need {folds} pairs; there are {len(same)}"
        reasons["accuracy"] = needed if folds > 1 else "the pairs are one run: it takes two or more"
        return replace(verified, accuracy=None, accuracy_std=None, reasons=reasons)
    accuracy, spread = published_accuracy(distances, same, folds)
    return replace(verified, accuracy=accuracy, accuracy_std=spread, reasons=reasons)
