"""Which images are compared in verification: all pairs, or a random part where there are too many.

Enrolled images are the clean ones, in the order of their labels, so that each person holds one run
of places. For a probe at hand the places it may be compared with form a range with holes, and the
k-th of them is found by arithmetic: no (N, N) table is ever made.

    clean probes    each pair once: genuine in (own place, end of own run), impostors after that run
    processed       genuine in the own run but for the photographs that the probe was made from,
                    impostors outside of the run
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers


@dataclass(frozen=True)
class Choices:
    """For each of P probes the enrolled places ``start <= place < stop`` outside its holes.

    Attributes:
        start: (P,) first place.
        stop: (P,) place after the last.
        holes: (P, H) first places of the holes, rising along each row and inside the range.
        sizes: (P, H) their lengths, 0 for none.
    """

    start: Numbers
    stop: Numbers
    holes: Numbers
    sizes: Numbers

    @property
    def counts(self) -> Numbers:
        """(P,) number of places of each probe."""
        counts: Numbers = self.stop - self.start - self.sizes.sum(1)
        return counts

    def draw(self, limit: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
        """All pairs, or about ``limit`` different ones, uniformly, where there are more.

        Returns:
            Places of the enrolled images and numbers of the probes, both (pairs,).
        """
        ends = np.cumsum(self.counts)
        total = int(ends[-1]) if len(ends) else 0
        flat = np.unique(rng.integers(0, total, limit)) if total > limit else np.arange(total)
        probe = np.searchsorted(ends, flat, side="right")
        place = self.start[probe] + flat - (ends - self.counts)[probe]
        for hole, size in zip(self.holes.T, self.sizes.T, strict=True):
            place += np.where(place >= hole[probe], size[probe], 0)
        return place, probe


@dataclass(frozen=True)
class Comparisons:
    """The genuine and the impostor choices of a set of probes."""

    genuine: Choices
    impostor: Choices


def compare_clean(labels: Numbers) -> Comparisons:
    """All pairs of clean images, each once.

    Args:
        labels: (N,) of the enrolled images, not falling.
    """
    place = np.arange(len(labels))
    end = np.searchsorted(labels, labels, side="right")
    last = np.full_like(place, len(labels))
    none = np.zeros((len(labels), 0), dtype=np.int64)
    return Comparisons(
        genuine=Choices(place + 1, end, none, none), impostor=Choices(end, last, none, none)
    )


def compare_processed(labels: Numbers, made_from: Numbers) -> Comparisons:
    """Processed probes against all clean images but those that each was made from.

    Args:
        labels: (N,) of the enrolled images, not falling.
        made_from: (P, H) places of the clean images of each probe, all of one person: the first
            column is always one, the others may be -1 for none.
    """
    own = labels[made_from[:, 0]]
    begin = np.searchsorted(labels, own, side="left")
    end = np.searchsorted(labels, own, side="right")
    zero, last = np.zeros_like(begin), np.full_like(begin, len(labels))
    # what is none goes behind the range, with no length
    holes = np.sort(np.where(made_from < 0, end[:, None], made_from), axis=1)
    distinct = np.diff(holes, axis=1, prepend=-1) > 0
    sizes = ((holes < end[:, None]) & distinct).astype(np.int64)
    return Comparisons(
        genuine=Choices(begin, end, holes, sizes),
        impostor=Choices(zero, last, begin[:, None], (end - begin)[:, None]),
    )


def cosines(
    enrolled: npt.NDArray[np.float32],
    probes: npt.NDArray[np.float32],
    pairs: tuple[Numbers, Numbers],
    chunk: int = 16384,
) -> npt.NDArray[np.float64]:
    """Cosine of each pair (place, probe), from rows of unit length (N, D) and (P, D).

    Summed in float32, as the rows are; float64 is the type that metrics take.
    """
    place, probe = pairs
    scores = np.empty(len(place))
    for start in range(0, len(place), chunk):
        part = slice(start, start + chunk)
        scores[part] = np.einsum("nd,nd->n", enrolled[place[part]], probes[probe[part]])
    return scores
