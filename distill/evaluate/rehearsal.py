"""Which numbers an evaluation will have, before there is a network to measure.

They are found by measuring one to which all faces look alike: what number there is, and what is
said where there is none, depends on people and pairs alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from distill.data.protocols.ijb import TemplateSet
from distill.evaluate.embed import CLEAN_KIND, Probes
from distill.evaluate.mirrored import Totals
from distill.evaluate.provenance import NONE
from distill.evaluate.report import CLEAN, PROCESSED, Condition, condition_scalars
from distill.evaluate.run import Task, classes_of_identities, condition_of
from distill.evaluate.search import search
from distill.evaluate.set_report import set_scalars
from distill.evaluate.sets import SetResult, result_of
from distill.evaluate.templates import TEMPLATE_FARS, TemplateResult, measure_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.data.manifest import Pack
    from distill.data.protocols.found import AnySet
    from distill.data.protocols.kinds import PairSet
    from distill.evaluate.report import Verification

PAIRS_MAX = 200_000
"""Enough for every number: twice the impostor pairs that the lowest FAR needs, since pairs that are
drawn several times count once."""
_NAMING = ("top1", "top5", "probability", "agreement")


class Foreseen(NamedTuple):
    """The numbers of a condition of a pack, or of a set.

    Attributes:
        names: without the name of the condition in front.
        reasons: why others that there could be are missing, by name.
    """

    names: list[str]
    reasons: dict[str, str]


def foreseen_of_pack(
    pack: Pack, condition: str, class_names: Sequence[str], pairs_max: int
) -> Foreseen:
    """What there will be of a condition of an evaluation pack.

    Args:
        pack: the pack.
        condition: ``clean``, the name of a kind, or ``processed`` for the mean of all kinds.
        class_names: who each class of the classifier is.
        pairs_max: most genuine, and most impostor pairs.
    """
    kinds = pack.manifest.kinds
    photographs = np.array(pack.manifest.pairs_per_identity) // len(kinds)
    labels = torch.arange(len(photographs)).repeat_interleave(torch.from_numpy(photographs))
    task = Task(
        kinds,
        classes_of_identities(pack, class_names),
        len(class_names),
        np.full(len(labels) * len(kinds), NONE),
        min(pairs_max, PAIRS_MAX),
    )
    # All kinds have as many pairs, so their mean has what the first one has.
    numbers = {CLEAN: CLEAN_KIND, PROCESSED: 0} | {name: i for i, name in enumerate(kinds)}
    kind, clean = numbers[condition], _alike(labels, CLEAN_KIND)
    probes = clean if kind == CLEAN_KIND else _alike(labels, kind)
    found = condition_of(kind, probes, clean, task)
    names = [name for name, _ in condition_scalars(found)]
    return Foreseen(names, found.verification.reasons | _why_unnamed(found, names))


def _why_unnamed(found: Condition, names: Sequence[str]) -> dict[str, str]:
    few = "there are no more than five people to name"
    why = few if found.identification else "training knows none of the people of data.evaluation"
    known = _NAMING if found.identification is None else ("top5",)
    return {name: why for name in known if name not in names}


def _alike(labels: torch.Tensor, kind: int) -> Probes:
    """Images, one of each photograph, with nothing to tell them apart by."""
    nothing = torch.zeros_like(labels)
    return Probes(
        photographs=torch.arange(len(labels)),
        kinds=torch.full_like(labels, kind),
        labels=labels,
        predicted=nothing,
        places=nothing,
        probabilities=nothing.float(),
        embeddings=torch.zeros(len(labels), 1),
    )


def foreseen_of_set(found: AnySet) -> Foreseen:
    """What there will be of a verification set."""
    result = _templates(found) if isinstance(found, TemplateSet) else _pairs(found)
    names = [name.removeprefix(f"{found.name}/") for name in set_scalars([result])]
    return Foreseen(names, result.verification.reasons)


def _pairs(found: PairSet) -> SetResult:
    return result_of(found, torch.zeros(len(found), 1), Totals(0.0, 0))


def _templates(found: TemplateSet) -> TemplateResult:
    searches = found.searches
    nothing = np.zeros((len(found.template_ids), 1))
    return TemplateResult(
        name=found.name,
        images=len(found),
        templates=len(found.template_ids),
        pairs=len(found.same),
        mean_length=0.0,
        verification=_few_pairs(found),
        search=None if searches is None else search(nothing, searches),
    )


def _few_pairs(found: TemplateSet) -> Verification:
    """Of millions of pairs no more are looked at than the lowest FAR needs."""
    enough = round(1 / float(TEMPLATE_FARS[-1]))
    genuine = int(found.same.sum())
    same = np.repeat([True, False], np.minimum([genuine, len(found.same) - genuine], enough))
    return measure_pairs(np.zeros(len(same)), same)
