"""Verification of templates, as for IJB-B and IJB-C: each is several images of one person.

What a template's vector is, and after whom, says `distill.data.protocols.ijb`. No embedding is
kept: every image is added to its template with the weight that it has there, so a rank holds T
vectors of float64 whatever the number of images (23,124 of 512 dimensions: 95 MB).

TAR at a FAR is read off as arcface_torch's ``eval_ijbc.py`` does, so that numbers compare: of the
corners of the ROC curve the one whose FAR is nearest, which may be above it; of several the best.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import auc, roc_curve

from distill.collectives import all_reduce_sum, from_first, gather_objects, gathered_rows, together
from distill.data.order import Share, evaluation_slice
from distill.data.protocols.ijb import TemplateSet
from distill.evaluate.metrics import Scores, crossing
from distill.evaluate.mirrored import Embedder
from distill.evaluate.report import Condition, Verification
from distill.evaluate.search import SearchResult, search
from distill.evaluate.verify import curve
from distill.finite import check_finite
from distill.ranks import Ranks

TEMPLATE_FARS = ("0.1", "0.01", "0.001", "0.0001", "0.00001", "0.000001")
BLOCK_ROWS = 256
"""Templates whose cosines with all others are there at a time: 47 MB for the 23,124 of IJB-C."""


@dataclass(frozen=True)
class TemplateResult:
    """What was measured on a set of templates.

    Attributes:
        name: ``ijbb`` or ``ijbc``.
        images, templates, pairs: how many there are.
        mean_length: of the embeddings of images before anything is made of them.
        verification: of pairs; there is no `accuracy`.
        search: None where the set comes without.
    """

    name: str
    images: int
    templates: int
    pairs: int
    mean_length: float
    verification: Verification
    search: SearchResult | None

    @property
    def condition(self) -> Condition:
        """The same as a condition without identification, for pictures and scalars."""
        return Condition(self.name, None, self.verification)


def evaluate_templates(found: TemplateSet, embedder: Embedder) -> TemplateResult:
    """The numbers of a set of templates, on every rank.

    Raises:
        UserError: an image cannot be used, or embeddings are not finite; on all ranks.
    """
    sums = template_sums(found, embedder)
    totals = embedder.totals()
    check_finite(sums, "embeddings", "templates", found.path)
    vectors = torch.nn.functional.normalize(sums)
    scores = cosines(vectors, found, embedder.ranks)
    verified, searched = on_first(found, scores, vectors.cpu().numpy(), embedder.ranks)
    return TemplateResult(
        name=found.name,
        images=len(found),
        templates=len(found.template_ids),
        pairs=len(found.same),
        mean_length=totals.mean_length,
        verification=verified,
        search=searched,
    )


def template_sums(found: TemplateSet, embedder: Embedder) -> torch.Tensor:
    """The weighted sum of each template's embeddings, (T, D) float64, on the device of the rank."""
    device, count = embedder.ranks.device, len(found.template_ids)
    places, weights = torch.from_numpy(found.templates), torch.from_numpy(found.weights)
    sums = torch.zeros(count, 0, dtype=torch.float64, device=device)
    with together():
        for part in embedder.parts(found):
            rows = part.both.double().sum(0) * weights[part.numbers].to(device)[:, None]
            if not sums.shape[1]:
                sums = sums.new_zeros(count, rows.shape[1])
            sums.index_add_(0, places[part.numbers].to(device), rows)
    width = max(gather_objects(sums.shape[1]))
    if not sums.shape[1]:  # more ranks than images
        sums = sums.new_zeros(count, width)
    return all_reduce_sum(sums)


def cosines(vectors: torch.Tensor, found: TemplateSet, ranks: Ranks) -> Scores:
    """The cosine of each pair, (P,); every rank computes its share."""
    mine = evaluation_slice(len(found.same), Share(ranks.rank, ranks.world_size))
    scores = torch.from_numpy(cosines_of(vectors, found.pairs[mine]))
    (everyones,) = gathered_rows(scores)
    whole: Scores = everyones.numpy()
    return whole


def cosines_of(vectors: torch.Tensor, pairs: npt.NDArray[Any]) -> Scores:
    """The cosine of each pair, by products of matrices: few first templates, those they meet.

    Args:
        vectors: of unit length, (T, D).
        pairs: numbers of two templates each, (P, 2).
    """
    scores = np.empty(len(pairs))
    order = np.argsort(pairs[:, 0], kind="stable")
    firsts, starts = np.unique(pairs[order, 0], return_index=True)
    for block in range(0, len(firsts), BLOCK_ROWS):
        rows = firsts[block : block + BLOCK_ROWS]
        ends = starts[block + BLOCK_ROWS : block + BLOCK_ROWS + 1]
        places = order[starts[block] : int(ends[0]) if len(ends) else None]
        columns, column = np.unique(pairs[places, 1], return_inverse=True)
        table = vectors[as_indices(rows)] @ vectors[as_indices(columns)].T
        row = np.searchsorted(rows, pairs[places, 0])
        scores[places] = table.cpu().numpy()[row, column]
    return scores


def as_indices(numbers: npt.NDArray[Any]) -> torch.Tensor:
    """Numbers of any type as torch takes them."""
    return torch.from_numpy(numbers.astype(np.int64))


def on_first(
    found: TemplateSet, scores: Scores, vectors: npt.NDArray[np.float64], ranks: Ranks
) -> tuple[Verification, SearchResult | None]:
    """What rank 0 makes of scores and vectors, told to all: to sort millions takes memory."""
    told = None
    if ranks.is_first:
        searched = None if found.searches is None else search(vectors, found.searches)
        told = [asdict(measure_pairs(scores, found.same)), searched and asdict(searched)]
    verified, searched_plain = from_first(told)
    return Verification(**verified), SearchResult.of(searched_plain)


def measure_pairs(scores: Scores, same: npt.NDArray[np.bool_]) -> Verification:
    """All numbers of P scores, and the reasons for those that they do not carry."""
    genuine, impostor = scores[same], scores[~same]
    counts = (len(genuine), len(impostor)) * 2
    reasons = {"accuracy": "pairs of templates come in no folds"}
    if not len(genuine) or not len(impostor):
        reason = "no pairs of one person" if not len(genuine) else "no pairs of two people"
        names = ("auc", "eer", *(f"tar_at_far_{far}" for far in TEMPLATE_FARS))
        reasons |= dict.fromkeys(names, reason)
        return Verification(*counts, tar_at_far=dict.fromkeys(TEMPLATE_FARS), reasons=reasons)
    far, tar, _ = roc_curve(same, scores)
    return Verification(
        *counts,
        auc=float(auc(far, tar)),
        eer=crossing(far, tar),
        tar_at_far=nearest_tars(far, tar, len(impostor), reasons),
        curve=curve(genuine, impostor),
        reasons=reasons,
    )


def nearest_tars(
    far: Scores, tar: Scores, impostors: int, reasons: dict[str, str]
) -> dict[str, float | None]:
    """TAR at each of `TEMPLATE_FARS`, None where not even one false accept is to be expected.

    Args:
        far: of the corners of the ROC curve, rising.
        tar: likewise.
        impostors: pairs of two people.
        reasons: gets a note for what is None.
    """
    tars: dict[str, float | None] = {}
    for wanted in TEMPLATE_FARS:
        needed = round(1 / float(wanted))
        if impostors < needed:
            tars[wanted] = None
            reasons[f"tar_at_far_{wanted}"] = (
                f"needs {needed} impostor pairs (one expected false accept); there are {impostors}"
            )
            continue
        # from the end, so that of points at one distance the one with the highest TAR is found
        nearest = len(far) - 1 - int(np.abs(far[::-1] - float(wanted)).argmin())
        tars[wanted] = float(tar[nearest])
    return tars
