"""From usable photographs to the sides of a split, with nothing nearly the same on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from distill.data.duplicates import HASH_BITS, alike, face_hash, groups
from distill.data.pack.options import PackOptions
from distill.data.pack.photos import Survey
from distill.data.pack.spool import read_face
from distill.data.pairs import Photos
from distill.data.splits import Groups, Split, split_by_identity, split_by_image
from distill.data.workers import Team

_ROWS = 64
"""Faces that a worker hashes at a time."""


def split_survey(
    found: Survey, group_of: Groups, options: PackOptions, advance: Callable[[int], None]
) -> Split:
    """Which photographs are held out.

    Args:
        found: the usable photographs.
        group_of: of `alike_groups`.
        options: of the pack.
        advance: told of photographs that have drawn their lots.

    Raises:
        UserError: too few people or photographs to have two sides.
    """
    request = found.photos, group_of, options.seed, options.holdout, found.names
    if options.split_by == "image":
        return split_by_image(*request, advance)
    split = split_by_identity(*request)
    advance(len(found.photos))
    return split


def alike_groups(photos: Photos, spool: str, team: Team, advance: Callable[[int], None]) -> Groups:
    """Of each row of the spool, the group of faces that are nearly the same."""
    taken = np.sort(photos.rows)
    hashes = np.zeros(len(taken), np.dtype(f"u{HASH_BITS // 8}"))
    starts = range(0, len(taken), _ROWS)
    pieces = ((start, taken[start : start + _ROWS]) for start in starts)
    for (start, _), found in team.do(hash_rows, pieces, spool, name=lambda p: f"face {p[1][0]}"):
        hashes[start : start + len(found)] = found
        advance(len(found))

    def confirmed(first: int, second: int) -> bool:
        faces = (read_face(spool, int(taken[number])).rgb for number in (first, second))
        return alike(*faces)

    group_of = np.arange(1 + int(taken[-1]))
    group_of[taken] = taken[groups(hashes, confirmed)]
    return group_of


def hash_rows(piece: tuple[int, npt.NDArray[np.uint32]], spool: str) -> list[int]:
    """The hashes of the faces in some rows of a spool."""
    return [face_hash(read_face(spool, row).rgb) for row in piece[1].tolist()]


def with_own_labels(photos: Photos, names: Sequence[str]) -> tuple[Photos, list[str]]:
    """Photographs of some people, numbered anew without gaps, and these people's names."""
    relabelled, before = photos.labelled_anew()
    return relabelled, [names[label] for label in before.tolist()]
