"""From usable photographs to the sides of a split, with nothing nearly the same on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from distill.data.duplicates import HASH_BITS, alike, face_hash, groups
from distill.data.pack.options import PackOptions
from distill.data.pack.photos import Survey
from distill.data.pack.spool import read_face
from distill.data.pack.workers import Team
from distill.data.pairs import Photo
from distill.data.splits import Groups, Split, split_by_identity, split_by_image

_ROWS = 64
"""Faces that a worker hashes at a time."""


def split_survey(
    found: Survey, spool: str, options: PackOptions, team: Team, advance: Callable[[int], None]
) -> Split:
    """Which photographs are held out.

    Args:
        found: the usable photographs.
        spool: file of their aligned faces.
        options: of the pack.
        team: hashes the faces.
        advance: told of faces that have been compared.

    Raises:
        UserError: too few people or photographs to have two sides.
    """
    by = split_by_identity if options.split_by == "identity" else split_by_image
    group_of = alike_groups(found.photos, spool, team, advance)
    return by(found.photos, group_of, options.seed, options.holdout, found.names)


def alike_groups(
    photos: Sequence[Photo], spool: str, team: Team, advance: Callable[[int], None]
) -> Groups:
    """Of each row of the spool, the group of faces that are nearly the same."""
    count = 1 + max(photo.row for photo in photos)
    hashes = np.zeros(count, np.dtype(f"u{HASH_BITS // 8}"))
    for start, found in team.do(
        hash_rows, _starts(count), count, spool, name=lambda row: f"face {row}"
    ):
        hashes[start : start + len(found)] = found
        advance(len(found))
    taken = np.array(sorted(photo.row for photo in photos))

    def confirmed(first: int, second: int) -> bool:
        faces = (read_face(spool, int(taken[number])).rgb for number in (first, second))
        return alike(*faces)

    group_of = np.arange(count)
    group_of[taken] = taken[groups(hashes[taken], confirmed)]
    return group_of


def hash_rows(start: int, count: int, spool: str) -> list[int]:
    """The hashes of some faces of a spool of ``count``, from row ``start`` on."""
    rows = range(start, min(start + _ROWS, count))
    return [face_hash(read_face(spool, row).rgb) for row in rows]


def _starts(count: int) -> Iterator[int]:
    return iter(range(0, count, _ROWS))


def with_own_labels(photos: Sequence[Photo], names: Sequence[str]) -> tuple[list[Photo], list[str]]:
    """Photographs of some people, numbered anew without gaps, and these people's names."""
    present = sorted({photo.label for photo in photos})
    number = {label: i for i, label in enumerate(present)}
    relabelled = [photo._replace(label=number[photo.label]) for photo in photos]
    return relabelled, [names[label] for label in present]
