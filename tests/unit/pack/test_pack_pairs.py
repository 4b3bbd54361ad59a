"""Plans of pairs: deterministic by name, whole, and without photographs on both sides."""

from collections import Counter

import numpy as np
import pytest

from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.keyed import keyed_rng
from distill.data.pack import work
from distill.data.pairs import Photo, Photos, evaluation_pairs, kinds_of, training_pairs
from distill.data.second import SecondOptions
from distill.data.splits import split_by_image

KINDS = {"forehead": 0.5, "blur": 0.5, "pose": 0.2}


def photos(people=4, each=6):
    return Photos.of(
        Photo(p * each + i, f"p{p}/{i}.jpg", p, "") for p in range(people) for i in range(each)
    )


def planned(photos, seed=3, per_image=1):
    """Training pairs, with the kinds that whoever makes them draws."""
    return [
        plan._replace(kinds=kinds_of(plan, seed, KINDS))
        for plan in training_pairs(photos, seed, per_image)
    ]


def summary(plans):
    return {(p.first.origin, p.repeat): (p.kinds, p.other and p.other.origin) for p in plans}


def test_photographs_come_by_person_and_then_by_row():
    mixed = [Photo(row, f"{row}.jpg", row % 3 * 2, f"note {row}") for row in (7, 2, 0, 5, 3, 1)]
    ours = Photos.of(mixed)
    expected = sorted(mixed, key=lambda photo: (photo.label, photo.row))
    assert list(ours) == expected and len(ours) == 6
    assert [[p.row for p in few] for few in ours.whole_people()] == [[0, 3, 1, 7, 2, 5]]
    assert [ours[place] for place in range(6)] == expected
    some = ours.some(ours.labels > 0)
    anew, before = some.labelled_anew()
    assert [(p.origin, p.label) for p in anew] == [(p.origin, p.label // 2 - 1) for p in some]
    assert before.tolist() == [2, 4]
    assert list(Photos.of([]).whole_people()) == list(Photos.of([])) == []


def test_every_photograph_gets_its_pairs_with_at_least_one_kind():
    plans = planned(photos(), per_image=2)
    assert Counter(p.first.origin for p in plans) == {p.origin: 2 for p in photos()}
    assert all(p.kinds and set(p.kinds) <= set(KINDS) for p in plans)
    assert len({p.kinds for p in plans}) > 3


def test_other_photographs_are_of_the_same_person_and_not_the_same():
    for plan in planned(photos(), per_image=3):
        assert plan.other is not None
        assert plan.other.label == plan.first.label
        assert plan.other.row != plan.first.row
    alone = planned(photos(each=1))
    assert all(plan.other is None for plan in alone)


def test_other_photographs_are_those_of_a_generator_each():
    """Packs of earlier releases are made again. Photographs are looked up in pieces of people,
    of whom one here has more of them than a piece; and those of one are far apart in the source."""
    sizes = [1, 2, 700, 1, 511, 512, 3, *[5] * 300]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    own = [np.flatnonzero(labels == label).tolist() for label in range(len(sizes))]
    of_all = Photos.of(Photo(i, f"{i}.jpg", label, "") for i, label in enumerate(labels.tolist()))

    def other(label, place, repeat):
        if len(own[label]) == 1:
            return None
        rng = keyed_rng(3, f"{own[label][place]}.jpg", repeat, "other")
        return own[label][(place + int(rng.integers(1, len(own[label])))) % len(own[label])]

    everyone = [(label, place) for label, mine in enumerate(own) for place in range(len(mine))]
    expected = [(own[who][at], other(who, at, i), i) for who, at in everyone for i in range(2)]
    plans = training_pairs(of_all, 3, 2)
    assert [(p.first.row, p.other and p.other.row, p.repeat) for p in plans] == expected
    plans = evaluation_pairs(of_all, 3, ["blur", "pose"])
    once = [each[:2] for each in expected if each[2] == 0 for _ in range(2)]
    assert [(p.first.row, p.other and p.other.row) for p in plans] == once
    for few in of_all.whole_people():
        assert sum(photo.label != few[-1].label for photo in few) < 512


def test_kinds_do_not_depend_on_the_rest_of_the_source():
    whole = summary(planned(photos()))
    part = summary(planned(photos(people=2)))
    assert all(whole[key] == value for key, value in part.items())
    assert summary(planned(photos(), seed=4)) != whole


def test_draws_differ_by_seed_photograph_and_repeat_as_often_as_by_chance():
    """Along each of the three alone, the others kept."""
    made = [planned(photos(people=2, each=40), seed, per_image=8) for seed in range(8)]
    others = np.array([[plan.other.row for plan in plans] for plans in made]).reshape(8, 80, 8)
    steps = (others - np.arange(80)[:, None]) % 40
    ways = ["+".join(plan.kinds) for plans in made for plan in plans]
    kinds = np.unique(ways, return_inverse=True)[1].reshape(8, 80, 8)
    assert set(steps.ravel().tolist()) == set(range(1, 40))
    for drawn in (steps, kinds):
        shares = np.unique(drawn, return_counts=True)[1] / drawn.size
        for axis in range(3):
            alike = (np.diff(drawn, axis=axis) == 0).mean()
            assert abs(alike - (shares**2).sum()) < 0.03


def test_no_two_processings_are_drawn_from_one_key(monkeypatch):
    """Whatever seed, photograph, pair of it and kind."""
    drawn = []

    def combine(kinds, face, rng_of, **_):
        drawn.extend(int(rng_of(kind).integers(2**63)) for kind in ("blur", "pose", "eyes"))
        return face.rgb, ""

    face = AlignedFace(np.zeros((32, 32, 3), np.uint8), TEMPLATE)
    monkeypatch.setattr(work, "read_face", lambda *_: face)
    monkeypatch.setattr(work, "combine", combine)
    for _ in range(2):
        for seed in range(4):
            recipe = work.Recipe("", seed, 90, KINDS, SecondOptions())
            for plan in training_pairs(photos(people=2, each=3), seed, 5):
                work.make_pair(plan, recipe)
    assert drawn[:360] == drawn[360:] and len(set(drawn)) == 360


def test_evaluation_pairs_are_photograph_by_photograph():
    kinds = ["pose", "blur", "eyes"]
    plans = list(evaluation_pairs(photos(), 0, kinds))
    for i, plan in enumerate(plans):
        assert plan.first == photos()[i // 3]
        assert plan.kinds == (kinds[i % 3],)


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.9])
def test_a_split_has_everybody_on_both_sides_and_no_photograph_twice(fraction):
    split = split_by_image(photos(), np.arange(24), 1, fraction, ["a", "b", "c", "d"])
    train, held = split.train, split.held
    assert {p.label for p in train} == {p.label for p in held} == set(range(4))
    assert not {p.row for p in train} & {p.row for p in held}
    assert len(train) + len(held) == 24
    assert len(held) == 4 * min(max(round(6 * fraction), 1), 5)
    for plan in (*training_pairs(train, 1, 1), *evaluation_pairs(held, 1, ["pose"])):
        assert plan.other is None or (plan.other in train) == (plan.first in train)
