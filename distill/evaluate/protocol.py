"""The accuracy that is published for LFW, CFP-FP, AgeDB and their like.

As InsightFace's ``verification.py`` computes it, so that numbers compare: the pairs are cut, in the
order of the file, into runs, mostly ten (`PairSet.folds`); each is judged by the threshold that is
best on the others, out of 0.00, 0.01, .. 3.99 for the squared distance of two unit vectors.
(`metrics` draws and balances pairs and tries every threshold, which suits sets that nobody has
ordered.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers

THRESHOLDS = np.arange(0, 4, 0.01)
"""Squared distances below which a pair counts as the same person, (400,)."""


def published_accuracy(
    distances: npt.NDArray[np.float64], same: npt.NDArray[np.bool_], folds: int
) -> tuple[float, float]:
    """Mean and standard deviation over the runs.

    Args:
        distances: squared distances of the two unit vectors of each pair, (P,), P >= folds.
        same: whether a pair shows one person, (P,).
        folds: number of runs, at least 2.
    """
    assert len(distances) == len(same) >= folds > 1
    runs = np.array_split(np.arange(len(same)), folds)
    right = np.stack([right_answers(distances[run], same[run]) for run in runs])
    # the lowest of equally good thresholds
    best = (right.sum(0) - right).argmax(1)
    shares = right[np.arange(folds), best] / [len(run) for run in runs]
    return float(shares.mean()), float(shares.std())


def right_answers(distances: npt.NDArray[np.float64], same: npt.NDArray[np.bool_]) -> Numbers:
    """How many pairs each of `THRESHOLDS` judges rightly, (400,)."""
    near = np.searchsorted(np.sort(distances[same]), THRESHOLDS)
    far = (~same).sum() - np.searchsorted(np.sort(distances[~same]), THRESHOLDS)
    right: Numbers = near + far
    return right
