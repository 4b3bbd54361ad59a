"""Which photographs are held out: some of each person's, or all of some people's.

Photographs that are nearly the same (`distill.data.duplicates`) never stand on both sides: a group
of them goes to one side as a whole, and what cannot be moved is left out. Lots are drawn from names
and a seed, so the order of a source changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill.arrays import Numbers
from distill.data.keyed import keyed_rng
from distill.data.pairs import Photo, Photos
from distill.errors import UserError

SplitBy = Literal["image", "identity"]
SPLITS: tuple[SplitBy, ...] = ("image", "identity")


@dataclass(frozen=True)
class Split:
    """Two sides without a leak between them.

    Attributes:
        train: photographs to train on.
        held: photographs held out.
        dropped: photographs left out, because one nearly the same is on the other side, each with
            that one.
        moved: photographs that are on another side than by lot, because one nearly the same is.
        groups: groups of two or more photographs that are nearly the same.
        not_held: people all of whose photographs are on the side of training, though some were to
            be held out, because they are nearly the same.
    """

    train: Photos
    held: Photos
    dropped: list[tuple[Photo, Photo]]
    moved: int
    groups: int
    not_held: int

    def counts(self) -> dict[str, int]:
        """What happened, for the manifest."""
        return {
            "near_duplicate_groups": self.groups,
            "near_duplicates_moved": self.moved,
            "near_duplicates_dropped": len(self.dropped),
            "people_not_held_out": self.not_held,
        }


Groups = Numbers
"""Of each photograph, by its row: the number of its group."""


def split_by_image(
    photos: Photos, group_of: Groups, seed: int, fraction: float, names: Sequence[str]
) -> Split:
    """Some photographs of each person held out, every person to train on.

    Args:
        photos: usable ones.
        group_of: of each row, its group.
        seed: of the draw.
        fraction: share of each person's photographs that is held out, in (0, 1); at least one
            and never all of them.
        names: people, indexed by label.

    Raises:
        UserError: people with one photograph, who cannot be on both sides.
    """
    _check_two_each(photos, names)
    several = _several(photos, group_of)
    held, by_lot = np.zeros((2, len(group_of)), np.bool_)  # by group, and by row
    not_held = 0
    for own in photos.people():
        lots = {photo.row: _lot([photo], seed) for photo in own}
        count = min(max(round(len(own) * fraction), 1), len(own) - 1)
        by_lot[sorted(lots, key=lots.__getitem__)[:count]] = True
        groups = _groups(own, group_of, several)
        taken = _taken(own, groups, {g: _lot(m, seed) for g, m in groups.items()}, count)
        held[taken] = True
        not_held += not taken
    together = np.array([p.row for group in several.values() for p in group], np.int64)
    is_held = held[group_of[photos.rows]]
    moved = int((by_lot[together] != held[group_of[together]]).sum())
    return Split(photos.some(~is_held), photos.some(is_held), [], moved, len(several), not_held)


def _groups(
    own: Sequence[Photo], group_of: Groups, several: Mapping[int, list[Photo]]
) -> dict[int, list[Photo]]:
    """The groups that one person's photographs are in, with all that are in them."""
    return {
        group: several.get(group, [photo]) for photo in own for group in (int(group_of[photo.row]),)
    }


def _taken(
    own: Sequence[Photo],
    groups: Mapping[int, Sequence[Photo]],
    lots: Mapping[int, tuple[float, int]],
    count: int,
) -> list[int]:
    """The groups of one person that are held out, of about ``count`` photographs in all.

    Groups of several people stay where everybody trains; held out, one might lose all.
    """
    mine = sorted(groups, key=lots.__getitem__)
    free = [g for g in mine if all(p.label == own[0].label for p in groups[g])]
    return _fitting(free, {g: len(groups[g]) for g in free}, count, len(own))


def split_by_identity(
    photos: Photos, group_of: Groups, seed: int, fraction: float, names: Sequence[str]
) -> Split:
    """Some people held out with all their photographs, the others to train on.

    A photograph of somebody held out that is nearly the same as one to train on is left out.

    Args:
        photos: usable ones.
        group_of: of each row, its group.
        seed: of the draw.
        fraction: share of the people who are held out, in (0, 1); at least one, never all.
        names: people, indexed by label.

    Raises:
        UserError: fewer than two people.
    """
    labels = np.unique(photos.labels).tolist()
    if len(labels) < 2:
        raise UserError(
            f"--split-by identity with {len(labels)} person", fix="give two people or more"
        )
    count = min(max(round(len(labels) * fraction), 1), len(labels) - 1)
    lots = sorted(labels, key=lambda label: (keyed_rng(seed, names[label], "held").random(), label))
    is_held = np.isin(photos.labels, lots[:count])
    train, out = photos.some(~is_held), photos.some(is_held)
    twin = np.isin(group_of[out.rows], group_of[train.rows])
    dropped = _with_twins(out.some(twin), train, group_of)
    held = out.some(~twin)
    if not len(held):
        raise UserError(
            f"--split-by identity: all {len(dropped)} photographs of the people held out are nearly"
            " the same as others",
            fix="take another --seed, or clean the data set",
        )
    return Split(train, held, dropped, 0, len(_several(photos, group_of)), 0)


def _with_twins(out: Iterable[Photo], train: Photos, group_of: Groups) -> list[tuple[Photo, Photo]]:
    """Photographs, each with the first one to train on that is nearly the same."""
    dropped = list(out)
    wanted = np.unique([group_of[photo.row] for photo in dropped])
    groups, first = np.unique(group_of[train.rows], return_index=True)
    place_of = dict(zip(wanted.tolist(), first[np.searchsorted(groups, wanted)], strict=True))
    return [(photo, train[place_of[int(group_of[photo.row])]]) for photo in dropped]


def _fitting(free: Sequence[int], sizes: Mapping[int, int], count: int, own: int) -> list[int]:
    """Groups of about ``count`` photographs in all, by lot; the smallest where all are too large.

    Of the person's ``own`` photographs at least one is left; no group is taken if that cannot be.
    """
    taken, room = list[int](), count
    for group in free:
        if sizes[group] <= room:
            taken.append(group)
            room -= sizes[group]
    if taken:
        return taken
    return [group for group in sorted(free, key=sizes.__getitem__)[:1] if sizes[group] < own]


def _several(photos: Photos, group_of: Groups) -> dict[int, list[Photo]]:
    """The photographs of each group of two or more."""
    of = group_of[photos.rows]
    groups = defaultdict[int, list[Photo]](list)
    for place in np.flatnonzero(np.bincount(of)[of] > 1).tolist():
        groups[int(of[place])].append(photos[place])
    return dict(groups)


def _lot(group: Sequence[Photo], seed: int) -> tuple[float, int]:
    """The lot of a group: that of its first photograph by name."""
    first = min(group, key=lambda p: (p.origin, p.row))
    return keyed_rng(seed, first.origin, "holdout").random(), first.row


def _check_two_each(photos: Photos, names: Sequence[str]) -> None:
    labels, counts = np.unique(photos.labels, return_counts=True)
    alone = [names[label] for label in labels[counts < 2].tolist()]
    if alone:
        some = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        raise UserError(
            f"{len(alone)} people have one usable photograph, --holdout needs two: {some}",
            fix="add photographs of them, or leave them out with --min-images 2",
        )
