"""Which photographs are held out: some of each person's, or all of some people's.

Photographs that are nearly the same (`distill.data.duplicates`) never stand on both sides: a group
of them goes to one side as a whole, and what cannot be moved is left out. Lots are drawn from names
and a seed, so the order of a source changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from distill.data.keyed import keyed_rng
from distill.data.pairs import Photo, by_person
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

    train: list[Photo]
    held: list[Photo]
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


Groups = npt.NDArray[np.int64]
"""Of each photograph, by its row: the number of its group."""


def split_by_image(
    photos: Sequence[Photo], group_of: Groups, seed: int, fraction: float, names: Sequence[str]
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
    members = _members(photos, group_of)
    lots = _lots(photos, seed, fraction)
    held: set[int] = set()  # groups
    not_held = 0
    for label, own in by_person(photos).items():
        mine = sorted({int(group_of[p.row]) for p in own}, key=lambda g: _draw(members[g], seed))
        # Groups of several people stay where everybody trains; held out, one might lose all.
        free = [g for g in mine if {p.label for p in members[g]} == {label}]
        count = min(max(round(len(own) * fraction), 1), len(own) - 1)
        taken = _fitting(free, {g: len(members[g]) for g in free}, count, len(own))
        held.update(taken)
        not_held += not taken
    by_lot = {p.row: p.row in lots for p in photos}
    is_held = {p.row: int(group_of[p.row]) in held for p in photos}
    together = [p.row for group in members.values() if len(group) > 1 for p in group]
    return Split(
        [p for p in photos if not is_held[p.row]],
        [p for p in photos if is_held[p.row]],
        [],
        sum(by_lot[row] != is_held[row] for row in together),
        sum(len(group) > 1 for group in members.values()),
        not_held,
    )


def split_by_identity(
    photos: Sequence[Photo], group_of: Groups, seed: int, fraction: float, names: Sequence[str]
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
    labels = sorted({p.label for p in photos})
    if len(labels) < 2:
        raise UserError(
            f"--split-by identity with {len(labels)} person", fix="give two people or more"
        )
    count = min(max(round(len(labels) * fraction), 1), len(labels) - 1)
    lots = sorted(labels, key=lambda label: (keyed_rng(seed, names[label], "held").random(), label))
    out = set(lots[:count])
    train = [p for p in photos if p.label not in out]
    trained = {int(group_of[p.row]): p for p in reversed(train)}
    held, dropped = list[Photo](), list[tuple[Photo, Photo]]()
    for photo in photos:
        if photo.label in out:
            twin = trained.get(int(group_of[photo.row]))
            dropped.append((photo, twin)) if twin else held.append(photo)
    groups = sum(len(group) > 1 for group in _members(photos, group_of).values())
    if not held:
        raise UserError(
            f"--split-by identity: all {len(dropped)} photographs of the people held out are nearly"
            " the same as others",
            fix="take another --seed, or clean the data set",
        )
    return Split(train, held, dropped, 0, groups, 0)


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


def _members(photos: Sequence[Photo], group_of: Groups) -> dict[int, list[Photo]]:
    """The photographs of each group."""
    members = defaultdict[int, list[Photo]](list)
    for photo in photos:
        members[int(group_of[photo.row])].append(photo)
    return members


def _draw(group: Sequence[Photo], seed: int) -> tuple[float, int]:
    """The lot of a group: that of its first photograph by name."""
    first = min(group, key=lambda p: (p.origin, p.row))
    return keyed_rng(seed, first.origin, "holdout").random(), first.row


def _lots(photos: Sequence[Photo], seed: int, fraction: float) -> set[int]:
    """Rows that would be held out if no two photographs were alike."""
    held: set[int] = set()
    for own in by_person(photos).values():
        count = min(max(round(len(own) * fraction), 1), len(own) - 1)
        held.update(p.row for p in sorted(own, key=lambda p: _draw([p], seed))[:count])
    return held


def _check_two_each(photos: Sequence[Photo], names: Sequence[str]) -> None:
    alone = [names[label] for label, own in sorted(by_person(photos).items()) if len(own) < 2]
    if alone:
        some = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        raise UserError(
            f"{len(alone)} people have one usable photograph, --holdout needs two: {some}",
            fix="add photographs of them, or leave them out with --min-images 2",
        )
