"""Which pairs are made of which photographs: pure, from names and a seed alone.

Everything is drawn from keys that hold the photograph's own name, so a photograph added or removed
changes only the pairs it takes part in, and the number of workers changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.keyed import first_integers, keyed_rng
from distill.data.second import draw_kinds

_AT_A_TIME = 512
"""Photographs that are looked up, and draw, at a time."""


class Photo(NamedTuple):
    """A photograph with a usable face.

    Attributes:
        row: where its aligned face is kept while packing.
        origin: its name within the source.
        label: index of the person.
        note: what is worth knowing of it, or nothing.
    """

    row: int
    origin: str
    label: int
    note: str


class Photos:
    """Photographs, by person and then by row: 8 bytes each in memory, names are looked up.

    Args:
        rows: where their faces are kept, (N,) uint32, none twice.
        labels: indices of their people, (N,) int32.
        told: origins and notes of the photographs in some rows, which rise.
        origins: their origins alone.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.uint32],
        labels: npt.NDArray[np.int32],
        told: Callable[[npt.NDArray[np.uint32]], Iterator[tuple[str, str]]],
        origins: Callable[[npt.NDArray[np.uint32]], Iterator[str]],
    ) -> None:
        order = np.lexsort((rows, labels))
        self.rows, self.labels = rows[order], labels[order]
        self._told, self._origins = told, origins

    @classmethod
    def of(cls, photos: Iterable[Photo]) -> Self:
        """These, for small numbers."""
        known = {photo.row: photo for photo in photos}

        def told(rows: npt.NDArray[np.uint32]) -> Iterator[tuple[str, str]]:
            return ((known[row].origin, known[row].note) for row in rows.tolist())

        labels = np.array([photo.label for photo in known.values()], np.int32)
        return cls(
            np.array(list(known), np.uint32),
            labels,
            told,
            lambda rows: (origin for origin, _ in told(rows)),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Photo:
        return self._between(place, place + 1)[0]

    def __iter__(self) -> Iterator[Photo]:
        for start in range(0, len(self), _AT_A_TIME):
            yield from self._between(start, min(start + _AT_A_TIME, len(self)))

    def whole_people(self) -> Iterator[list[Photo]]:
        """All photographs of some people after all of others; few of them, or one person's."""
        for piece in whole_pieces(self.labels):
            yield self._between(piece.start, piece.stop)

    def _between(self, start: int, end: int) -> list[Photo]:
        rows, labels = self.rows[start:end], self.labels[start:end]
        rising, found = np.argsort(rows), dict[int, Photo]()
        for at, (origin, note) in zip(rising.tolist(), self._told(rows[rising]), strict=True):
            found[at] = Photo(int(rows[at]), origin, int(labels[at]), note)
        return [found[at] for at in range(len(rows))]

    def some(self, which: npt.NDArray[np.bool_]) -> Photos:
        """Those for whose place ``which``, (N,), says so."""
        return Photos(self.rows[which], self.labels[which], self._told, self._origins)

    def origins(self, places: Numbers) -> Iterator[str]:
        """Names within the source of those at ``places``, whose rows rise."""
        return self._origins(self.rows[places])

    def labelled_anew(self) -> tuple[Photos, npt.NDArray[np.int32]]:
        """The same with labels without gaps, and of each label what it was before."""
        before, labels = np.unique(self.labels, return_inverse=True)
        return Photos(self.rows, labels.astype(np.int32), self._told, self._origins), before


def whole_pieces(numbers: npt.NDArray[np.integer[Any]]) -> Iterator[slice]:
    """Where equal numbers, which follow each other, stay together: about as many at a time."""
    ends = np.append(np.flatnonzero(np.diff(numbers)) + 1, len(numbers))
    start = 0
    while start < len(numbers):
        at = int(np.searchsorted(ends, start + _AT_A_TIME))
        end = int(ends[min(at, len(ends) - 1)])
        yield slice(start, end)
        start = end


class PairPlan(NamedTuple):
    """A pair to be made.

    Attributes:
        first: the sample.
        other: another photograph of the same person, or None where there is none.
        kinds: processings of the second image, in the order of application; None where they are
            drawn, see `kinds_of`.
        repeat: which of the sample's pairs this is.
    """

    first: Photo
    other: Photo | None
    kinds: tuple[str, ...] | None
    repeat: int


def training_pairs(photos: Photos, seed: int, per_image: int) -> Iterator[PairPlan]:
    """``per_image`` pairs of each photograph, whose kinds are drawn by whoever makes them."""
    for photo, others in _with_others(photos, seed, per_image):
        for repeat, other in enumerate(others):
            yield PairPlan(photo, other, None, repeat)


def single_photos(photos: Photos) -> Iterator[PairPlan]:
    """Each photograph once, by rising label; its second images are made while training."""
    for photo in photos:
        yield PairPlan(photo, None, (), 0)


def evaluation_pairs(photos: Photos, seed: int, kinds: Sequence[str]) -> Iterator[PairPlan]:
    """One pair of each photograph for each kind: pair i is photograph i // K, kind i % K."""
    for photo, (other,) in _with_others(photos, seed, 1):
        for kind in kinds:
            yield PairPlan(photo, other, (kind,), 0)


def kinds_of(plan: PairPlan, seed: int, probabilities: Mapping[str, float]) -> tuple[str, ...]:
    """The processings of a pair, those of a training pair drawn by their probabilities."""
    if plan.kinds is not None:
        return plan.kinds
    return draw_kinds(probabilities, keyed_rng(seed, plan.first.origin, plan.repeat, "kinds"))


def _with_others(
    photos: Photos, seed: int, repeats: int
) -> Iterator[tuple[Photo, list[Photo | None]]]:
    """Each photograph with another one of the same person, if there is one, for each repeat."""
    for some in photos.whole_people():
        labels, names = np.array([one.label for one in some]), [one.origin for one in some]
        begins = np.flatnonzero(np.diff(labels, prepend=-1))
        own = np.diff(begins, append=len(some))
        begin, size = np.repeat(begins, own), np.repeat(own, own)
        drawn = list[list[int]]()
        for repeat in range(repeats):
            steps = 1 + first_integers(np.maximum(size - 1, 1), seed, names, repeat, "other")
            drawn.append((begin + (np.arange(len(some)) - begin + steps) % size).tolist())
        for place, (photo, *places) in enumerate(zip(some, *drawn, strict=True)):
            yield photo, [some[other] if other != place else None for other in places]
