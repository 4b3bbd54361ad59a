"""Same person or not, by the cosine of two embeddings."""

from __future__ import annotations

import numpy as np

from distill.arrays import Numbers
from distill.evaluate.embed import Probes
from distill.evaluate.metrics import (
    EXPECTED_FALSE_ACCEPTS,
    FOLDS,
    Scores,
    area_under_curve,
    carries,
    equal_error_rate,
    tar_at_far,
    ten_fold_accuracy,
)
from distill.evaluate.pairs import Comparisons, compare_clean, compare_processed, cosines
from distill.evaluate.report import Verification

FARS = ("0.1", "0.01", "0.001", "0.0001")
CURVE_POINTS = 200


def verify(
    enrolled: Probes, probes: Probes | None, others: Numbers, *, limit: int, seed: int
) -> Verification:
    """Verification of ``probes`` against ``enrolled``, or of ``enrolled`` among themselves.

    Args:
        enrolled: the clean images, sorted by label.
        probes: processed images, each compared with the clean ones of all photographs that it was
            not made from; None compares the clean ones with each other.
        others: (P,) number of a second photograph that each probe was made from, -1 for none.
        limit: most genuine, and most impostor pairs; drawn at random where there are more.
        seed: of the draw: the same pairs are compared for every model.
    """
    comparisons = choose(enrolled, probes, others)
    vectors = (enrolled.vectors, (probes or enrolled).vectors)
    rng = np.random.default_rng(seed)
    genuine, impostor = (
        cosines(*vectors, choices.draw(limit, rng))
        for choices in (comparisons.genuine, comparisons.impostor)
    )
    return measure(
        genuine,
        impostor,
        genuine_total=int(comparisons.genuine.counts.sum()),
        impostor_total=int(comparisons.impostor.counts.sum()),
    )


def choose(enrolled: Probes, probes: Probes | None, others: Numbers) -> Comparisons:
    """Which places of ``enrolled`` each probe is compared with."""
    labels = enrolled.labels.numpy()
    if probes is None:
        return compare_clean(labels)
    photographs = np.column_stack([probes.photographs.numpy(), others])
    return compare_processed(labels, places_of(photographs, enrolled.photographs.numpy()))


def places_of(photographs: Numbers, enrolled: Numbers) -> Numbers:
    """Where each photograph stands in ``enrolled``, any shape; -1 for those that are -1."""
    place = np.full(enrolled.max() + 2, -1)
    place[enrolled] = np.arange(len(enrolled))
    return place[photographs]  # -1 finds the last element, which is -1


def measure(
    genuine: Scores, impostor: Scores, *, genuine_total: int, impostor_total: int
) -> Verification:
    """All numbers that so many scores carry, and the reasons for those that they do not."""
    counts = (len(genuine), len(impostor), genuine_total, impostor_total)
    if not len(genuine) or not len(impostor):
        reason = "no pairs of one person" if not len(genuine) else "no pairs of two people"
        names = ("auc", "eer", "accuracy", *(f"tar_at_far_{far}" for far in FARS))
        return Verification(
            *counts,
            tar_at_far=dict.fromkeys(FARS),
            reasons=dict.fromkeys(names, f"{reason} in the pack"),
        )
    reasons: dict[str, str] = {}
    accuracy, spread = accuracy_or_reason(genuine, impostor, reasons)
    return Verification(
        *counts,
        auc=area_under_curve(genuine, impostor),
        eer=equal_error_rate(genuine, impostor),
        accuracy=accuracy,
        accuracy_std=spread,
        tar_at_far=tars_or_reasons(genuine, impostor, reasons),
        curve=curve(genuine, impostor),
        reasons=reasons,
    )


def accuracy_or_reason(
    genuine: Scores, impostor: Scores, reasons: dict[str, str]
) -> tuple[float | None, float | None]:
    """Ten-fold accuracy and its deviation; where there are too few pairs, a note in ``reasons``."""
    if min(len(genuine), len(impostor)) >= FOLDS:
        return ten_fold_accuracy(genuine, impostor)
    reasons["accuracy"] = (
        f"{FOLDS} folds need {FOLDS} genuine and {FOLDS} impostor pairs;"
        f" there are {len(genuine)} and {len(impostor)}"
    )
    return None, None


def tars_or_reasons(
    genuine: Scores, impostor: Scores, reasons: dict[str, str]
) -> dict[str, float | None]:
    """TAR at each of `FARS`; None, and a note in ``reasons``, where the pairs do not carry it."""
    tars: dict[str, float | None] = {}
    for far in FARS:
        if carries(len(impostor), float(far)):
            tars[far] = float(tar_at_far(genuine, impostor, np.array([float(far)]))[0])
            continue
        tars[far] = None
        needed = round(EXPECTED_FALSE_ACCEPTS / float(far))
        reasons[f"tar_at_far_{far}"] = (
            f"needs {needed} impostor pairs ({EXPECTED_FALSE_ACCEPTS} expected false accepts);"
            f" there are {len(impostor)}"
        )
    return tars


def curve(genuine: Scores, impostor: Scores) -> list[list[float]]:
    """The ROC curve, evenly on a logarithmic scale of FAR, from one impostor pair to all."""
    fars = np.geomspace(1 / len(impostor), 1.0, CURVE_POINTS)
    points = np.column_stack([fars, tar_at_far(genuine, impostor, fars)])
    return [[round(float(far), 8), round(float(tar), 6)] for far, tar in points]
