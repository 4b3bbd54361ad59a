"""Splits: nothing nearly the same on both sides, whatever the groups are."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.keyed import keyed_rng
from distill.data.pack.photos import Found
from distill.data.pairs import Photo, Photos
from distill.data.people import (
    alike_but_for_capitals,
    people_taken,
    person_name,
    reason_against,
)
from distill.data.sources import Sample
from distill.data.splits import split_by_identity, split_by_image
from distill.errors import UserError


def photos_of(labels):
    return [Photo(row, f"{label}/{row}.jpg", label, "") for row, label in enumerate(labels)]


def by_image(photos, *rest):
    return split_by_image(Photos.of(photos), *rest)


def by_identity(photos, *rest):
    return split_by_identity(Photos.of(photos), *rest)


def names_of(labels):
    return [f"person {i}" for i in range(max(labels) + 1)]


people = st.lists(st.integers(0, 5), min_size=2, max_size=40).map(
    lambda labels: sorted(labels + sorted(set(labels)))
)
"""Labels of photographs, each person twice or more; not without gaps."""


@st.composite
def cases(draw):
    labels = draw(people)
    roots = [
        draw(st.integers(0, row)) if draw(st.booleans()) else row for row in range(len(labels))
    ]
    group_of = np.arange(len(labels))
    for row, root in enumerate(roots):
        group_of[row] = group_of[root]
    return photos_of(labels), group_of, names_of(labels), draw(st.floats(0.05, 0.9))


@settings(deadline=None)
@given(cases(), st.integers(0, 3))
def test_by_image_no_group_is_on_both_sides(case, seed):
    photos, group_of, names, fraction = case
    split = by_image(photos, group_of, seed, fraction, names)
    train, held = ({int(group_of[p.row]) for p in side} for side in (split.train, split.held))
    assert not train & held
    assert sorted([*split.train, *split.held]) == photos and not split.dropped
    for label in {p.label for p in photos}:
        own = [p for p in photos if p.label == label]
        mine = [p for p in split.held if p.label == label]
        assert any(p.label == label for p in split.train)
        groups = {int(group_of[p.row]) for p in own}
        alone = [g for g in groups if all(p.label == label for p in photos if group_of[p.row] == g)]
        # Held out wherever one group of theirs can go and something of them stays.
        assert bool(mine) == bool(alone and len(groups) > 1)
    absent = {p.label for p in photos} - {p.label for p in split.held}
    assert split.not_held == len(absent)
    by_lot = by_image(photos, np.arange(len(photos)), seed, fraction, names).held
    moved = {p.row for p in by_lot} ^ {p.row for p in split.held}
    sizes = np.bincount(group_of)[group_of]
    assert split.moved == sum(int(sizes[row]) > 1 for row in moved)
    assert split.groups == (np.bincount(group_of) > 1).sum()


def drawn_one_by_one(photos, group_of, seed, fraction):
    """Rows held out by image and how many moved, as the first releases drew them: packs made then
    are made again to the same bytes.
    """
    members = defaultdict(list)
    for photo in photos:
        members[int(group_of[photo.row])].append(photo)

    def lot(some):
        first = min(some, key=lambda p: (p.origin, p.row))
        return keyed_rng(seed, first.origin, "holdout").random(), first.row

    held, by_lot = set(), set()
    for label in {p.label for p in photos}:
        own = [p for p in photos if p.label == label]
        count = min(max(round(len(own) * fraction), 1), len(own) - 1)
        by_lot |= {p.row for p in sorted(own, key=lambda p: lot([p]))[:count]}
        mine = {int(group_of[p.row]) for p in own}
        free = [g for g in mine if all(p.label == label for p in members[g])]
        free.sort(key=lambda g: lot(members[g]))
        taken, room = [], count
        for group in free:
            if len(members[group]) <= room:
                taken.append(group)
                room -= len(members[group])
        least = sorted(free, key=lambda g: len(members[g]))[:1]
        taken = taken or [g for g in least if len(members[g]) < len(own)]
        held |= {p.row for group in taken for p in members[group]}
    together = {p.row for some in members.values() if len(some) > 1 for p in some}
    return held, len((held ^ by_lot) & together)


@settings(deadline=None)
@given(cases(), st.integers(-3, 2**70), st.randoms(use_true_random=False))
def test_by_image_draws_what_it_has_always_drawn(case, seed, rng):
    photos, group_of, names, fraction = case
    # Some names twice: faces of one photograph, each with points of its own.
    origins = [f"{'é' * (i % 3)}{i // rng.randint(1, 9)}\udcff" for i in range(len(photos))]
    rng.shuffle(origins)
    rows = np.sort(rng.sample(range(99), len(photos)))
    groups = np.arange(99)
    groups[rows] = rows[group_of]
    photos = [Photo(int(rows[p.row]), origins[p.row], p.label, "") for p in photos]
    told = []
    split = by_image(rng.sample(photos, len(photos)), groups, seed, fraction, names, told.append)
    expected = drawn_one_by_one(photos, groups, seed, fraction)
    assert ({p.row for p in split.held}, split.moved) == expected
    assert sorted([*split.held, *split.train]) == sorted(photos) and sum(told) == len(photos)


@pytest.mark.parametrize("seed", range(6))
def test_of_equal_lots_the_first_row_counts(seed):
    photos = [Photo(row, name, 0, "") for row, name in enumerate("xyxz")]
    group_of = np.array([0, 0, 2, 3])
    split = by_image(photos, group_of, seed, 0.5, ["p"])
    expected = drawn_one_by_one(photos, group_of, seed, 0.5)
    assert ({p.row for p in split.held}, split.moved) == expected


@settings(deadline=None)
@given(people.filter(lambda labels: len(set(labels)) > 1), st.floats(0.05, 0.9), st.integers(0, 9))
def test_by_identity_draws_what_it_has_always_drawn(labels, fraction, seed):
    names, everybody = names_of(labels), sorted(set(labels))
    split = by_identity(photos_of(labels), np.arange(len(labels)), seed, fraction, names)
    lots = sorted((keyed_rng(seed, names[label], "held").random(), label) for label in everybody)
    count = min(max(round(len(everybody) * fraction), 1), len(everybody) - 1)
    assert {p.label for p in split.held} == {label for _, label in lots[:count]}


@settings(deadline=None)
@given(people, st.floats(0.05, 0.9), st.integers(0, 3), st.randoms(use_true_random=False))
def test_by_image_without_groups(labels, fraction, seed, rng):
    photos, names = photos_of(labels), names_of(labels)
    split = by_image(photos, np.arange(len(labels)), seed, fraction, names)
    for label in set(labels):
        own = labels.count(label)
        mine = sum(p.label == label for p in split.held)
        assert mine == min(max(round(own * fraction), 1), own - 1)
    assert (split.moved, split.groups, split.not_held) == (0, 0, 0)
    shuffled = rng.sample(photos, len(photos))
    again = by_image(shuffled, np.arange(len(labels)), seed, fraction, names)
    assert set(again.held) == set(split.held)


@settings(deadline=None)
@given(cases(), st.integers(0, 3))
def test_by_identity_nobody_and_nothing_is_on_both_sides(case, seed):
    photos, group_of, names, fraction = case
    everybody = {p.label for p in photos}
    if len(everybody) < 2:
        with pytest.raises(UserError, match="1 person"):
            by_identity(photos, group_of, seed, fraction, names)
        return
    try:
        split = by_identity(photos, group_of, seed, fraction, names)
    except UserError as error:
        assert "nearly the same as others" in str(error)
        return
    trained, tested = ({p.label for p in side} for side in (split.train, split.held))
    gone = {photo.label for photo, _ in split.dropped}
    assert not trained & (tested | gone) and trained | tested | gone == everybody
    assert len(trained) == len(everybody) - min(
        max(round(len(everybody) * fraction), 1), len(everybody) - 1
    )
    train_groups = {int(group_of[p.row]) for p in split.train}
    assert not train_groups & {int(group_of[p.row]) for p in split.held}
    for photo, twin in split.dropped:
        assert group_of[photo.row] == group_of[twin.row] and twin in split.train
    everything = [*split.train, *split.held, *(photo for photo, _ in split.dropped)]
    assert sorted(everything) == photos


@pytest.mark.parametrize("split", [by_image, by_identity])
def test_every_seed_draws_anew_and_everything_is_as_likely(split):
    """Two of eight people, or two of the eight photographs of each."""
    labels = np.repeat(np.arange(8), 8)
    photos, group_of, names = photos_of(labels.tolist()), np.arange(64), names_of(labels.tolist())
    held = np.zeros((100, 64))
    for seed, row in enumerate(held):
        row[[photo.row for photo in split(photos, group_of, seed, 0.25, names).held]] = 1
    assert (held.sum(axis=1) == 16).all()
    assert np.abs(held.mean(axis=0) - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 100)


@pytest.mark.parametrize("seed", range(4))
def test_where_all_groups_are_too_large_the_smallest_is_held_out(seed):
    group_of = np.array([0, 0, 0, 3, 3, 3, 3, 7, 7, 9, 9, 9])
    split = by_image(photos_of([0] * 12), group_of, seed, 0.1, ["x"])
    assert [photo.row for photo in split.held] == [7, 8]


def test_what_moved_is_counted():
    photos, group_of = photos_of([0] * 10), np.arange(10)
    free = by_image(photos, group_of, 0, 0.3, ["x"])
    one, other = free.held[0].row, free.train[0].row
    group_of[max(one, other)] = min(one, other)
    split = by_image(photos, group_of, 0, 0.3, ["x"])
    assert (split.groups, split.moved) == (1, 1)
    assert split.counts()["near_duplicates_moved"] == 1


def test_one_photograph_is_refused_by_name():
    with pytest.raises(UserError, match=r"1 people have one usable photograph.*person 1"):
        by_image(photos_of([0, 0, 1]), np.arange(3), 0, 0.2, names_of([0, 1]))


def test_numbers_keep_their_order_and_gaps_close():
    counts = {"10": 3, "9": 3, "2": 1, "100": 50}
    assert people_taken(counts, 1, 0) == ["2", "9", "10", "100"]
    assert people_taken(counts, 2, 10) == ["9", "10"]
    assert people_taken({"b": 1, "10": 1, "9": 1}, 1, 0) == ["10", "9", "b"]
    assert people_taken({"007": 1, "7": 1, "10": 1}, 1, 0) == ["007", "10", "7"]
    assert people_taken({}, 1, 0) == []
    assert reason_against(1, 2, 0) == "person has 1 usable photographs, fewer than 2"
    assert reason_against(9, 2, 8) == "person has 9 usable photographs, more than 8"
    assert reason_against(8, 2, 8) == ""


PIECES = (b"\\", b"\\x", b"ff", b"\xff", b"\xc3", "\u00e9".encode(), b"a", b"x")
AWKWARD = st.lists(st.sampled_from(PIECES), max_size=5).map(b"".join)


@given(first=AWKWARD, second=AWKWARD)
def test_no_two_people_get_the_same_name(first: bytes, second: bytes) -> None:
    names = [person_name(name.decode("utf-8", "surrogateescape")) for name in (first, second)]
    assert (names[0] == names[1]) == (first == second)
    assert all(name.encode() for name in names if name), "valid Unicode"


def test_names_of_people_in_their_usual_form() -> None:
    for name in ("Ann", "A\\B", "Zo\u00eb", "\\x", "\\xgg"):
        assert person_name(name) == name
    assert person_name("Zo\udceb") == "Zo\\xeb"
    assert person_name("Zo\\xeb") == "Zo\\\\xeb"


def test_two_spellings_of_a_name_are_one_person() -> None:
    """As a folder is called by macOS, and by everybody else."""
    found = Found()
    for number, name in enumerate(("Zoe\u0308", "Zoe", "Zo\u00eb")):
        found.add(Sample(f"{number}.png", name, bytes), face=True, sha256=bytes(32))
    assert list(found.people) == ["Zo\u00eb", "Zoe"]
    assert found.persons.tolist() == [0, 1, 0]


def test_people_whose_names_differ_in_capitals_alone():
    names = ["ann", "Bob", "Ann", "ANN", "Zo\u00eb", "ZO\u00cb", "STRASSE", "stra\u00dfe", "10"]
    together = [["ANN", "Ann", "ann"], ["STRASSE", "stra\u00dfe"], ["ZO\u00cb", "Zo\u00eb"]]
    assert alike_but_for_capitals(names) == together
    assert (
        alike_but_for_capitals(["ann", "bob", "ann b"]) == alike_but_for_capitals(["1", "2"]) == []
    )
    assert alike_but_for_capitals([]) == []
