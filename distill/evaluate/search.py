"""Searching people in galleries: rank-k, and TPIR at FPIR (1:N, closed and open set).

Each probe is searched for in each gallery. Where the gallery has the person, the search is mated:
it is right at rank k if fewer than k other people score as high as the right one. Where it has not,
every answer is wrong: FPIR at a threshold is the share of these searches with any score at or above
it, TPIR that of the mated ones whose right person is at rank 1 and not below it (Grother and Ngan,
NIST IR 8009, 2014, parts 1.2 and 1.3). As IJB reports them, galleries are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.protocols.ijb_search import Enrolled, Searches
from distill.evaluate.metrics import Scores, tar_at_far

RANKS = (1, 5, 10)
FPIRS = ("0.01", "0.1")
SCORES_AT_ONCE = 1 << 24
"""Scores in memory at a time: 128 MiB, however many people a gallery has."""

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GalleryResult:
    """What was found in one gallery.

    Attributes:
        name: of the gallery.
        people: in it.
        mated: searches for people in it.
        unmated: searches for others.
        rank: share of the mated that are right at rank "1", "5", "10"; None without any.
        tpir_at_fpir: TPIR at FPIR "0.01", "0.1"; None where not one unmated search may be wrong.
    """

    name: str
    people: int
    mated: int
    unmated: int
    rank: dict[str, float | None]
    tpir_at_fpir: dict[str, float | None]


@dataclass(frozen=True)
class SearchResult:
    """What was found in all galleries.

    Attributes:
        galleries: each by itself.
        rank: over all mated searches.
        tpir_at_fpir: mean of the galleries; None where one has none.
    """

    galleries: list[GalleryResult]
    rank: dict[str, float | None] = field(default_factory=dict)
    tpir_at_fpir: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: dict[str, Any] | None) -> SearchResult | None:
        """A result from its plain form."""
        if plain is None:
            return None
        return cls(**plain | {"galleries": [GalleryResult(**each) for each in plain["galleries"]]})

    @property
    def scalars(self) -> dict[str, float]:
        """As flat numbers; what is None is left out."""
        named = {f"rank{k}": share for k, share in self.rank.items()}
        named |= {f"tpir_at_fpir_{fpir}": share for fpir, share in self.tpir_at_fpir.items()}
        return {name: share for name, share in named.items() if share is not None}


class Places(NamedTuple):
    """What K searches in one gallery come to.

    Attributes:
        before: how many other people score as high as the right one, (K,); -1 where unmated.
        mate: score of the right person, (K,); minus infinity where unmated.
        best: highest score of any person, (K,).
    """

    before: Numbers
    mate: Scores
    best: Scores


def search(vectors: Vectors, searches: Searches) -> SearchResult:
    """All searches.

    Args:
        vectors: of the templates, of unit length, (T, D).
        searches: who is searched for among whom.
    """
    galleries = [in_gallery(vectors, each, searches.probes) for each in searches.galleries]
    mated = sum(each.mated for each in galleries)
    rank = {
        str(k): sum((each.rank[str(k)] or 0.0) * each.mated for each in galleries) / mated
        if mated
        else None
        for k in RANKS
    }
    tpir = {fpir: mean([each.tpir_at_fpir[fpir] for each in galleries]) for fpir in FPIRS}
    return SearchResult(galleries, rank, tpir)


def mean(values: list[float | None]) -> float | None:
    """The mean; None if one of them is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def in_gallery(vectors: Vectors, gallery: Enrolled, probes: Enrolled) -> GalleryResult:
    """All probes searched for in one gallery."""
    places = places_of(vectors, gallery, probes)
    mated = places.before >= 0
    before, total = places.before[mated], int(mated.sum())
    first = np.where(before == 0, places.mate[mated], -np.inf)
    return GalleryResult(
        name=gallery.name,
        people=len(gallery.people),
        mated=total,
        unmated=len(mated) - total,
        rank={str(k): float((before < k).mean()) if total else None for k in RANKS},
        tpir_at_fpir={fpir: tpir(first, places.best[~mated], float(fpir)) for fpir in FPIRS},
    )


def tpir(first: Scores, others: Scores, fpir: float) -> float | None:
    """The highest TPIR that a threshold reaches with at most ``fpir``.

    Args:
        first: scores of the right person, (M,); minus infinity where that is not at rank 1.
        others: highest score of each unmated search, (U,).
        fpir: below 1.
    """
    if not len(first) or len(others) * fpir < 1 - 1e-9:
        return None
    return float(tar_at_far(first, others, np.array([fpir]))[0])


def places_of(vectors: Vectors, gallery: Enrolled, probes: Enrolled) -> Places:
    """Every probe searched for, in blocks."""
    column = {int(person): place for place, person in enumerate(gallery.people)}
    mates = np.array([column.get(int(person), -1) for person in probes.people])
    enrolled = vectors[gallery.templates]
    at_once = max(SCORES_AT_ONCE // max(len(enrolled), 1), 1)
    parts = [
        block(vectors[probes.templates[start : start + at_once]] @ enrolled.T, mates[start:])
        for start in range(0, len(mates), at_once)
    ]
    return Places(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def block(scores: Scores, mates: Numbers) -> Places:
    """Some probes (K, G); of ``mates`` the first K count: column of the right person, or -1."""
    mates = mates[: len(scores)]
    mated = mates >= 0
    own = np.where(mated, scores[np.arange(len(scores)), mates], -np.inf)
    before = (scores >= own[:, None]).sum(1) - 1
    return Places(np.where(mated, before, -1), own, scores.max(1))
