"""What a set that `evaluate` reads holds: pairs, templates, images, damage. One pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.images import Unusable, facts
from distill.data.protocols.found import AnySet
from distill.data.protocols.ijb import TemplateSet

SHOWN = 20
"""Damaged images that are named."""


@dataclass(frozen=True)
class SetInspection:
    """What was found.

    Attributes:
        path: the file or folder.
        name: what `evaluate` files its numbers under.
        pairs: of images, or of templates.
        same: those that show one person.
        images: each once.
        damaged: each with its reason.
        folds: runs that the published accuracy is the mean of; None where it has none.
        templates: None for pairs of images.
        galleries: people in each gallery that is searched, by its name; empty without searches.
        probes: templates that are searched for.
    """

    path: Path
    name: str
    pairs: int
    same: int
    images: int
    damaged: list[str]
    folds: int | None = None
    templates: int | None = None
    galleries: dict[str, int] = field(default_factory=dict)
    probes: int = 0

    def described(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return {
            "set": self.path.absolute().name,
            "name": self.name,
            "pairs": self.pairs,
            "same": self.same,
            "images": self.images,
            "damaged": len(self.damaged),
            "damaged_first": self.damaged[:SHOWN],
            "folds": self.folds,
            "templates": self.templates,
            "galleries": self.galleries,
            "probes": self.probes,
        }

    def lines(self) -> list[str]:
        """All of it in words, the first damaged images last."""
        told = [f"{self.path.absolute().name}: {self._pairs()}, {self.same} of one person"]
        if self.folds is not None:
            told.append(f"  {_runs(self.folds)}")
        if self.galleries:
            among = " and ".join(
                f"{name} ({count} people)" for name, count in self.galleries.items()
            )
            told.append(f"  searches of {self.probes} templates among {among}")
        told.append(f"  {len(self.damaged)} of {self.images} images damaged")
        return [*told, *(f"    {line}" for line in self.damaged[:SHOWN])]

    def _pairs(self) -> str:
        if self.templates is None:
            return f"{self.pairs} pairs"
        return f"{self.templates} templates, {self.pairs} pairs of them"


def _runs(folds: int) -> str:
    """How the pairs are judged."""
    if folds < 2:
        return "one run: the published accuracy takes two or more"
    return f"{folds} runs, which the published accuracy is the mean of"


def inspect_set(
    found: AnySet, advance: Callable[[], None] = lambda: None, *, quick: bool = False
) -> SetInspection:
    """Look at every image of a set once.

    Args:
        found: the set, as `read_sets` gives it.
        advance: told of each image.
        quick: read only the headers of images, which does not find all damage.
    """
    damaged = []
    for number in range(len(found)):
        try:
            facts(found.image(number), decoded=not quick, min_side=found.min_side)
        except Unusable as fault:
            damaged.append(f"{found.called(number)}: {fault.reason}")
        advance()
    same = int(np.count_nonzero(found.same))
    counts = (found.path, found.name, len(found.same), same, len(found), damaged)
    if not isinstance(found, TemplateSet):
        return SetInspection(*counts, folds=found.folds)
    told = SetInspection(*counts, templates=len(found.template_ids))
    if found.searches is None:
        return told
    galleries = {one.name: len(one.people) for one in found.searches.galleries}
    return replace(told, galleries=galleries, probes=len(found.searches.probes.templates))
