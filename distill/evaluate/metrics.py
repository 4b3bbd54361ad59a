"""Numbers from scores of genuine pairs (same person) and impostor pairs (two people).

A pair is accepted where its score is at least the threshold. FAR is the share of impostor pairs
accepted, TAR that of genuine pairs. Curves and areas come from scikit-learn; TAR at a given FAR is
written here, exactly: scores that are equal are accepted together or not at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold

Scores = npt.NDArray[np.float64]

FOLDS = 10
FOLDS_SEED = 0
"""Of the draw of pairs and of their folds: the same scores give the same accuracy."""
EXPECTED_FALSE_ACCEPTS = 10
"""TAR at FAR f is given where f times the impostor pairs is at least this: its threshold then rests
on so many impostors, and the FAR that it stands for is known to about a third of itself."""


def tar_at_far(genuine: Scores, impostor: Scores, far: Scores) -> Scores:
    """The largest TAR that any threshold reaches with a FAR of at most ``far``.

    Args:
        genuine: (G,) scores, G >= 1.
        impostor: (N,) scores, N >= 1.
        far: (F,) highest allowed shares, in [0, 1].

    Returns:
        (F,) shares of ``genuine`` accepted.
    """
    falling = np.sort(impostor)[::-1]
    # the small addition makes 0.1 * 30 three and not two
    allowed = np.floor(np.asarray(far) * len(falling) + 1e-9).astype(int)
    # with k accepts allowed, the threshold lies just above the score in place k
    first_refused = np.append(falling, -np.inf)[np.minimum(allowed, len(falling))]
    refused = np.searchsorted(np.sort(genuine), first_refused, side="right")
    shares: Scores = 1.0 - refused / len(genuine)
    return shares


def carries(impostor_pairs: int, far: float) -> bool:
    """Whether so many impostor pairs are enough to speak of a FAR of ``far``."""
    return far * impostor_pairs >= EXPECTED_FALSE_ACCEPTS * (1 - 1e-9)


def area_under_curve(genuine: Scores, impostor: Scores) -> float:
    """Chance that a genuine pair scores above an impostor pair (equal scores count half)."""
    return float(roc_auc_score(*labelled(genuine, impostor)))


def equal_error_rate(genuine: Scores, impostor: Scores) -> float:
    """The rate at which FAR equals 1 - TAR, on the straight line between the two nearest points."""
    far, tar, _ = roc_curve(*labelled(genuine, impostor), drop_intermediate=False)
    return crossing(far, tar)


def crossing(far: Scores, tar: Scores) -> float:
    """Where a ROC curve, of points with rising FAR, has FAR = 1 - TAR."""
    gap = far - (1 - tar)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    weight = -gap[before] / (gap[after] - gap[before])
    return float(far[before] + weight * (far[after] - far[before]))


def ten_fold_accuracy(genuine: Scores, impostor: Scores) -> tuple[float, float]:
    """Accuracy of "same or not", each tenth judged by the threshold that is best on the other nine.

    As in the LFW protocol there are as many impostor as genuine pairs; whichever are more are
    drawn at random.

    Args:
        genuine: at least 10 scores.
        impostor: at least 10 scores.

    Returns:
        Mean over the folds and its standard deviation.
    """
    size = min(len(genuine), len(impostor))
    rng = np.random.default_rng(FOLDS_SEED)
    drawn = (rng.permutation(genuine)[:size], rng.permutation(impostor)[:size])
    same, scores = labelled(*drawn)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=FOLDS_SEED).split(
        scores[:, None], same
    )
    results = [
        np.mean((scores[tenth] >= best_threshold(same[nine], scores[nine])) == same[tenth])
        for nine, tenth in folds
    ]
    return float(np.mean(results)), float(np.std(results))


def best_threshold(same: npt.NDArray[np.bool_], scores: Scores) -> float:
    """The threshold with the highest mean of TAR and 1 - FAR; the highest of several.

    It lies halfway between the lowest score accepted and the highest refused.
    """
    far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
    best = int(np.argmax(tar - far))
    # best is never the last one, which accepts all: the first, which accepts none, is as good
    return float((thresholds[best] + thresholds[best + 1]) / 2)


def labelled(genuine: Scores, impostor: Scores) -> tuple[npt.NDArray[np.bool_], Scores]:
    """Both kinds of scores as (whether the same person, scores), as scikit-learn takes them."""
    same = np.repeat([True, False], [len(genuine), len(impostor)])
    return same, np.concatenate([genuine, impostor])
