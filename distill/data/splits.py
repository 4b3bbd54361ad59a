"""Which photographs are held out: some of each person's, or all of some people's.

Photographs that are nearly the same (`distill.data.duplicates`) never stand on both sides: a group
of them goes to one side as a whole, and what cannot be moved is left out. Lots are drawn from names
and a seed, so the order of a source changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.keyed import first_randoms
from distill.data.pairs import Photo, Photos, whole_pieces
from distill.errors import UserError

Places = npt.NDArray[np.bool_]
Lots = npt.NDArray[np.float64]
_AT_A_TIME = 1 << 12
"""Photographs that draw their lots at a time."""
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
    photos: Photos,
    group_of: Groups,
    seed: int,
    fraction: float,
    names: Sequence[str],
    advance: Callable[[int], None] = lambda _: None,
) -> Split:
    """Some photographs of each person held out, every person to train on.

    Args:
        photos: usable ones.
        group_of: of each row, its group.
        seed: of the draw.
        fraction: share of each person's photographs that is held out, in (0, 1); at least one
            and never all of them.
        names: people, indexed by label.
        advance: told of photographs that have drawn their lots.

    Raises:
        UserError: people with one photograph, who cannot be on both sides.
    """
    _check_two_each(photos, names)
    is_held, moved, groups = _drawn(photos, group_of[photos.rows], seed, fraction, advance)
    some, all_people = (_people_in(labels) for labels in (photos.labels[is_held], photos.labels))
    sides = photos.some(~is_held), photos.some(is_held)
    return Split(*sides, [], moved, groups, all_people - some)


def _people_in(labels: npt.NDArray[np.int32]) -> int:
    """How many people there are; their labels rise."""
    return int(np.count_nonzero(np.diff(labels, prepend=-1)))


def _drawn(
    photos: Photos, of: Groups, seed: int, fraction: float, advance: Callable[[int], None]
) -> tuple[Places, int, int]:
    """Which photographs are held out, how many moved with their group, and how many groups.

    Args:
        photos: N of them.
        of: the group of each, (N,).
        seed: of the draw.
        fraction: of the photographs of each person.
        advance: told of photographs that have drawn their lots.
    """
    sizes = np.bincount(of)
    groups, shared = int((sizes > 1).sum()), (sizes > 1)[of]
    del sizes  # as large as the lots, and no more needed
    lots = _lots(photos, seed, advance)
    starts = np.flatnonzero(np.diff(photos.labels, prepend=-1))
    own = np.diff(starts, append=len(photos))
    counts = np.clip(np.rint(own * fraction).astype(np.int64), 1, own - 1)
    by_lot = _first_in(np.lexsort((lots, photos.labels)), starts, counts)
    if not groups:
        return by_lot, 0, 0
    person = np.repeat(np.arange(len(own), dtype=np.int32), own)
    is_held = _held_by_groups(photos, (person, of, shared, lots), (own, counts), by_lot)
    return is_held, int((by_lot != is_held)[shared].sum()), groups


def _first_in(order: Numbers, starts: Numbers, counts: Numbers) -> Places:
    """Those that come first in ``order`` of each person, from ``starts`` on, so many: (N,)."""
    first, people = np.zeros(len(order), np.bool_), np.zeros(len(order) + 1, np.int8)
    people[starts] += 1
    people[starts + counts] -= 1
    first[order] = np.cumsum(people[:-1], dtype=np.int8) > 0
    return first


def _lots(photos: Photos, seed: int, advance: Callable[[int], None]) -> Lots:
    """What each photograph draws, (N,): of equal ones the photograph with the lower row is first.

    Names are read in the order of the source.
    """
    lots = np.empty(len(photos))
    for places in _pieces(np.argsort(photos.rows, kind="stable")):
        lots[places] = first_randoms(seed, photos.origins(places), "holdout")
        advance(len(places))
    return lots


def _pieces(places: Numbers) -> Iterator[Numbers]:
    """The same, few at a time."""
    return (places[start : start + _AT_A_TIME] for start in range(0, len(places), _AT_A_TIME))


def _held_by_groups(
    photos: Photos,
    each: tuple[npt.NDArray[np.int32], Groups, Places, Lots],
    people: tuple[Numbers, Numbers],
    by_lot: Places,
) -> Places:
    """Which photographs are held out, those of a group together.

    A group draws the lot of its first photograph by name. Groups of several people stay where
    everybody trains; held out, one might lose all.

    Args:
        photos: N of them, of P people.
        each: of each its person, its group, whether others share it, and its lot; (N,).
        people: how many photographs each has, and how many are to be held out; (P,).
        by_lot: what is held out of people without such groups, (N,).
    """
    (person, of, shared, lots), (own, counts) = each, people
    touched = np.zeros(len(own), np.bool_)
    touched[person[shared]] = True
    alone = np.flatnonzero(touched[person] & ~shared)
    firsts, sizes = _groups_of_one(photos, person, of, np.flatnonzero(shared))
    units = np.append(alone, firsts)
    sizes = np.append(np.ones(len(alone), np.int64), sizes)
    order = np.lexsort((photos.rows[units], lots[units], person[units]))
    units, sizes = units[order], sizes[order]
    held = np.zeros(1 + int(of.max()), np.bool_)
    starts = np.flatnonzero(np.diff(person[units], prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(units)]):
        who = int(person[units[start]])
        taken = _fitting(sizes[start:end].tolist(), int(counts[who]), int(own[who]))
        held[of[units[start:end][taken]]] = True
    return np.where(touched[person], held[of], by_lot)


def _groups_of_one(
    photos: Photos, person: npt.NDArray[np.int32], of: Groups, shared: Numbers
) -> tuple[Numbers, Numbers]:
    """Of each group within one person the place of its first photograph by name, and its size."""
    places = shared[np.argsort(of[shared], kind="stable")]
    starts = np.flatnonzero(np.diff(of[places], prepend=-1))
    one = np.minimum.reduceat(person[places], starts) == np.maximum.reduceat(person[places], starts)
    sizes = np.diff(starts, append=len(places))
    own, firsts = places[np.repeat(one, sizes)], list[int]()
    for piece in whole_pieces(of[own]):
        firsts += _firsts_by_name(photos, own[piece], of)
    return np.array(firsts, np.int64), sizes[one]


def _firsts_by_name(photos: Photos, places: Numbers, of: Groups) -> list[int]:
    """Of each group among ``places``, in their order, the place of the first photograph."""
    places = places[np.argsort(photos.rows[places])]
    first = dict[int, tuple[str, int]]()
    groups, names = of[places].tolist(), photos.origins(places)
    for group, each in zip(groups, zip(names, places.tolist(), strict=True), strict=True):
        first[group] = min(first.get(group, each), each)
    return [first[group][1] for group in sorted(first)]


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
    lots = first_randoms(seed, (names[label] for label in labels), "held")
    is_held = np.isin(photos.labels, np.array(labels)[np.argsort(lots, kind="stable")[:count]])
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
    groups = int((np.bincount(group_of[photos.rows]) > 1).sum())
    return Split(train, held, dropped, 0, groups, 0)


def _with_twins(out: Iterable[Photo], train: Photos, group_of: Groups) -> list[tuple[Photo, Photo]]:
    """Photographs, each with the first one to train on that is nearly the same."""
    dropped = list(out)
    wanted = np.unique([group_of[photo.row] for photo in dropped])
    groups, first = np.unique(group_of[train.rows], return_index=True)
    place_of = dict(zip(wanted.tolist(), first[np.searchsorted(groups, wanted)], strict=True))
    return [(photo, train[place_of[int(group_of[photo.row])]]) for photo in dropped]


def _fitting(sizes: Sequence[int], count: int, own: int) -> list[int]:
    """Places of groups of about ``count`` photographs in all, the first ones that fit; the smallest
    one where all are too large.

    Of the person's ``own`` photographs at least one is left; no group is taken if that cannot be.
    """
    taken, room = list[int](), count
    for place, size in enumerate(sizes):
        if size <= room:
            taken.append(place)
            room -= size
    if taken:
        return taken
    least = min(range(len(sizes)), key=sizes.__getitem__)
    return [least] if sizes[least] < own else []


def _check_two_each(photos: Photos, names: Sequence[str]) -> None:
    labels, counts = np.unique(photos.labels, return_counts=True)
    alone = [names[label] for label in labels[counts < 2].tolist()]
    if alone:
        some = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        raise UserError(
            f"{len(alone)} people have one usable photograph, --holdout needs two: {some}",
            fix="add photographs of them, or leave them out with --min-images 2",
        )
