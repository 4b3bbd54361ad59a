"""Naming people: the classifier's answers for one kind of probe."""

from __future__ import annotations

import torch
from sklearn.metrics import accuracy_score

from distill.evaluate.embed import Probes
from distill.evaluate.report import Identification

TOP = 5


def identify(
    probes: Probes, clean: Probes | None, classes_of: torch.Tensor, classes: int
) -> Identification | None:
    """The accuracies of ``probes``, or None where the classifier knows none of the people.

    Args:
        probes: images of one kind.
        clean: the clean image of each probe, in the same order; None where the probes are clean.
        classes_of: class of the classifier for each identity of the pack, -1 where it has none.
        classes: C.
    """
    right = classes_of[probes.labels]
    known = right >= 0
    if not known.any():
        return None
    predicted, right, places = probes.predicted[known], right[known], probes.places[known]
    same = clean.predicted[known] if clean is not None else None
    return Identification(
        images=len(right),
        top1=float(accuracy_score(right, predicted)),
        top5=float((places < TOP).double().mean()) if classes > TOP else None,
        probability=float(probes.probabilities[known].double().mean()),
        agreement=float(accuracy_score(same, predicted)) if same is not None else None,
    )
