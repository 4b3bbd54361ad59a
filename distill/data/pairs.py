"""Which pairs are made of which photographs: pure, from names and a seed alone.

Everything is drawn from keys that hold the photograph's own name, so a photograph added or removed
changes only the pairs it takes part in, and the number of workers changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.keyed import keyed_rng
from distill.data.second import draw_kinds


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
        told: origin and note of the photograph in a row.
        origins: origins of those in many rows, which rise; of one after the other if None.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.uint32],
        labels: npt.NDArray[np.int32],
        told: Callable[[int], tuple[str, str]],
        origins: Callable[[npt.NDArray[np.uint32]], Iterator[str]] | None = None,
    ) -> None:
        order = np.lexsort((rows, labels))
        self.rows, self.labels = rows[order], labels[order]
        self._told, self._origins = told, origins

    @classmethod
    def of(cls, photos: Iterable[Photo]) -> Self:
        """These, for small numbers."""
        listed = list(photos)
        told = {photo.row: (photo.origin, photo.note) for photo in listed}
        rows = np.array([photo.row for photo in listed], np.uint32)
        labels = np.array([photo.label for photo in listed], np.int32)
        return cls(rows, labels, told.__getitem__)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Photo:
        row = int(self.rows[place])
        origin, note = self._told(row)
        return Photo(row, origin, int(self.labels[place]), note)

    def __iter__(self) -> Iterator[Photo]:
        return (self[place] for place in range(len(self)))

    def people(self) -> Iterator[list[Photo]]:
        """The photographs of one person after the other."""
        starts = np.flatnonzero(np.diff(self.labels, prepend=-1))
        for start, end in pairwise(np.append(starts, len(self))):
            yield [self[place] for place in range(start, end)]

    def some(self, which: npt.NDArray[np.bool_]) -> Photos:
        """Those for whose place ``which``, (N,), says so."""
        return Photos(self.rows[which], self.labels[which], self._told, self._origins)

    def origins(self, places: Numbers) -> Iterator[str]:
        """Names within the source of those at ``places``, whose rows rise."""
        rows = self.rows[places]
        if self._origins is not None:
            return self._origins(rows)
        return (self._told(row)[0] for row in rows.tolist())

    def labelled_anew(self) -> tuple[Photos, npt.NDArray[np.int32]]:
        """The same with labels without gaps, and of each label what it was before."""
        before, labels = np.unique(self.labels, return_inverse=True)
        return Photos(self.rows, labels.astype(np.int32), self._told, self._origins), before


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
    for own in photos.people():
        for place, photo in enumerate(own):
            for repeat in range(per_image):
                yield PairPlan(photo, _other(own, place, seed, repeat), None, repeat)


def single_photos(photos: Photos) -> Iterator[PairPlan]:
    """Each photograph once, by rising label; its second images are made while training."""
    for photo in photos:
        yield PairPlan(photo, None, (), 0)


def evaluation_pairs(photos: Photos, seed: int, kinds: Sequence[str]) -> Iterator[PairPlan]:
    """One pair of each photograph for each kind: pair i is photograph i // K, kind i % K."""
    for own in photos.people():
        for place, photo in enumerate(own):
            for kind in kinds:
                yield PairPlan(photo, _other(own, place, seed, 0), (kind,), 0)


def kinds_of(plan: PairPlan, seed: int, probabilities: Mapping[str, float]) -> tuple[str, ...]:
    """The processings of a pair, those of a training pair drawn by their probabilities."""
    if plan.kinds is not None:
        return plan.kinds
    return draw_kinds(probabilities, keyed_rng(seed, plan.first.origin, plan.repeat, "kinds"))


def _other(own: Sequence[Photo], place: int, seed: int, repeat: int) -> Photo | None:
    """Another photograph of the same person than the one at ``place``."""
    if len(own) < 2:
        return None
    step = int(keyed_rng(seed, own[place].origin, repeat, "other").integers(1, len(own)))
    return own[(place + step) % len(own)]
