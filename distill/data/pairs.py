"""Which pairs are made of which photographs: pure, from names and a seed alone.

Everything is drawn from keys that hold the photograph's own name, so a photograph added or removed
changes only the pairs it takes part in, and the number of workers changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

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


class PairPlan(NamedTuple):
    """A pair to be made.

    Attributes:
        first: the sample.
        other: another photograph of the same person, or None where there is none.
        kinds: processings of the second image, in the order of application.
        repeat: which of the sample's pairs this is.
    """

    first: Photo
    other: Photo | None
    kinds: tuple[str, ...]
    repeat: int


def by_person(photos: Sequence[Photo]) -> dict[int, list[Photo]]:
    """Photographs of each label, by rising row."""
    people: dict[int, list[Photo]] = {}
    for photo in sorted(photos):
        people.setdefault(photo.label, []).append(photo)
    return people


def training_pairs(
    photos: Sequence[Photo], seed: int, probabilities: Mapping[str, float], per_image: int
) -> Iterator[PairPlan]:
    """``per_image`` pairs of each photograph, each with kinds drawn by their probabilities."""
    people = by_person(photos)
    for photo in photos:
        for repeat in range(per_image):
            kinds = draw_kinds(probabilities, keyed_rng(seed, photo.origin, repeat, "kinds"))
            yield PairPlan(photo, _other(photo, people, seed, repeat), kinds, repeat)


def single_photos(photos: Iterable[Photo]) -> Iterator[PairPlan]:
    """Each photograph once, by rising label; its second images are made while training."""
    for photo in sorted(photos, key=lambda photo: (photo.label, photo.row)):
        yield PairPlan(photo, None, (), 0)


def evaluation_pairs(
    photos: Sequence[Photo], seed: int, kinds: Sequence[str]
) -> Iterator[PairPlan]:
    """One pair of each photograph for each kind: pair i is photograph i // K, kind i % K."""
    people = by_person(photos)
    for photo in photos:
        for kind in kinds:
            yield PairPlan(photo, _other(photo, people, seed, 0), (kind,), 0)


def _other(
    photo: Photo, people: Mapping[int, Sequence[Photo]], seed: int, repeat: int
) -> Photo | None:
    """Another photograph of the same person."""
    own = people[photo.label]
    if len(own) < 2:
        return None
    place = bisect_left(own, photo.row, key=lambda p: p.row)
    step = int(keyed_rng(seed, photo.origin, repeat, "other").integers(1, len(own)))
    return own[(place + step) % len(own)]
