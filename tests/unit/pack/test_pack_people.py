"""Whose pairs are whose where several packs are one set: driven over names, labels and places."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.excluded import Excluded
from distill.data.gaps import Gaps
from distill.data.pack_index import Renumbering
from distill.data.second.online import Partners
from distill.data.training_set import People, TrainingSet, joined_people
from distill.errors import UserError

quick = settings(max_examples=150, deadline=None, derandomize=True)
NAMES = st.sampled_from(["0", "1", "a", "b", "a (pack 1)", "(forgotten 0)", "a (pack 1) (pack 1)"])


@st.composite
def some_packs(draw):
    """People of up to four packs, of few names, with some forgotten."""
    packs = []
    for _ in range(draw(st.integers(2, 4))):
        names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
        forgotten = draw(st.lists(st.integers(0, len(names) - 1), unique=True, max_size=2))
        packs.append(SimpleNamespace(manifest=SimpleNamespace(
            identities=names, forgotten=sorted(forgotten))))  # fmt: skip
    return packs


def remembered(packs):
    """(pack, label, name) of everybody who was not forgotten."""
    for number, pack in enumerate(packs):
        for label, name in enumerate(pack.manifest.identities):
            if label not in pack.manifest.forgotten:
                yield number, label, name


@quick
@given(some_packs(), st.sampled_from(["same_person", "different_people"]))
def test_two_labels_are_one_class_exactly_where_they_are_one_person(packs, same_names):
    people = joined_people(packs, same_names)
    assert len(set(people.names)) == len(people.names)
    flat = np.concatenate(people.classes)
    assert sorted(set(flat.tolist())) == list(range(len(people.names)))
    owners = defaultdict(set)
    for number, pack in enumerate(packs):
        for label, name in enumerate(pack.manifest.identities):
            forgotten = label in pack.manifest.forgotten
            alone = forgotten or same_names == "different_people"
            owners[int(people.classes[number][label])].add((number, label) if alone else name)
    assert all(len(of_class) == 1 for of_class in owners.values())
    assert len({next(iter(of_class)) for of_class in owners.values()}) == len(people.names)


@quick
@given(some_packs())
def test_names_stay_where_they_can_and_the_first_pack_keeps_its_labels(packs):
    known = list(remembered(packs))
    for same_names in ("same_person", "different_people"):
        people = joined_people(packs, same_names)
        assert people.classes[0].tolist() == list(range(len(packs[0].manifest.identities)))
        for number, label, name in known:
            alone = sum(other == name for *_, other in known) == 1
            found = people.names[people.classes[number][label]]
            assert found.startswith(name)
            assert (found == name) == (alone or same_names == "same_person")
    shared = {name for *_, name in known if sum(other == name for *_, other in known) > 1}
    if shared:
        with pytest.raises(UserError, match=f"{len(shared)} names stand in several packs"):
            joined_people(packs, "refuse")
    else:
        assert joined_people(packs, "refuse").shared == 0


@quick
@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_numbers_of_a_pack_become_its_own_new_ones(new, rng):
    packs = [rng.randrange(len(new)) for _ in range(30)]
    counts = np.array([len(part) for part in new])
    starts = np.cumsum(counts) - counts
    found = Renumbering(starts, counts, np.concatenate(new)).of(
        np.array(packs), old := np.array([rng.randrange(-2, 8) for _ in packs])
    )
    expected = [
        new[pack][number] if 0 <= number < len(new[pack]) else -1
        for pack, number in zip(packs, old.tolist(), strict=True)
    ]
    assert found.tolist() == expected


@quick
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=7))
def test_partners_are_photos_of_the_person_in_any_pack(runs):
    people, counts = np.array(runs).T
    people = np.unique(people, return_inverse=True)[1]
    partners = Partners(counts, people)
    owner = np.repeat(people, counts)
    ids = np.arange(len(owner))
    assert np.array_equal(partners.label_of(ids), owner)
    seen = defaultdict(set)
    for epoch in range(400):
        for i, partner in enumerate(partners.of(3, np.full(len(ids), epoch), ids).tolist()):
            seen[i].add(partner)
    for i in ids.tolist():
        others = {j for j in ids.tolist() if owner[j] == owner[i] and j != i}
        assert seen[i] == (others or {-1})


def test_people_are_emptied_who_had_pairs_and_have_none():
    """Somebody who was forgotten had none before."""
    counts = ([3, 0, 2, 1], [0, 4])
    packs = [SimpleNamespace(manifest=SimpleNamespace(pairs_per_identity=c)) for c in counts]
    names = ["ann", "(forgotten 1)", "bob", "cid", "dan"]
    people = People(names, [np.arange(4), np.array([2, 4])], 0)
    out = {3: 2, 4: 2, 5: 3, 6: 5}  # both of bob's, cid's, and one of dan's
    left_out = Excluded(Gaps(np.array(list(out))), np.array(list(out.values())))
    assert TrainingSet(tuple(packs), people, ["blur"], left_out).emptied == 2
