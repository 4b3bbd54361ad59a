"""Which images are compared, against two nested loops."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.evaluate.pairs import compare_clean, compare_processed, cosines

EVERYTHING = 10**9
label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=12).map(
    lambda values: np.sort(np.array(values))
)


def drawn(choices, limit=EVERYTHING):
    place, probe = choices.draw(limit, np.random.default_rng(0))
    return list(zip(place.tolist(), probe.tolist(), strict=True))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(label_lists)
def test_clean_pairs_are_all_pairs_once(labels):
    comparisons = compare_clean(labels)
    pairs = list(itertools.combinations(range(len(labels)), 2))
    genuine = {frozenset(p) for p in pairs if labels[p[0]] == labels[p[1]]}
    impostor = {frozenset(p) for p in pairs if labels[p[0]] != labels[p[1]]}
    for choices, expected in ((comparisons.genuine, genuine), (comparisons.impostor, impostor)):
        found = drawn(choices)
        assert len(found) == len(expected) and {frozenset(p) for p in found} == expected


@settings(max_examples=80, deadline=None, derandomize=True)
@given(label_lists, st.randoms(use_true_random=False))
def test_processed_probes_never_meet_the_photographs_they_were_made_from(labels, random):
    own = [random.randrange(len(labels)) for _ in range(7)]
    same = [np.flatnonzero(labels == labels[place]).tolist() for place in own]
    other = [random.choice([-1, *places]) for places in same]
    comparisons = compare_processed(labels, np.column_stack([own, other]))
    pairs = [(e, p) for e in range(len(labels)) for p in range(7) if e not in (own[p], other[p])]
    genuine = [(e, p) for e, p in pairs if labels[e] == labels[own[p]]]
    impostor = [(e, p) for e, p in pairs if labels[e] != labels[own[p]]]
    assert sorted(drawn(comparisons.genuine)) == sorted(genuine)
    assert sorted(drawn(comparisons.impostor)) == sorted(impostor)


def test_a_draw_is_distinct_repeatable_and_even():
    labels = np.repeat(np.arange(20), 10)
    impostor = compare_clean(labels).impostor
    assert impostor.counts.sum() == 19_900 - 20 * 45
    some = drawn(impostor, limit=3000)
    assert some == drawn(impostor, limit=3000)
    assert len(set(some)) == len(some) and 2500 < len(some) <= 3000
    assert set(some) <= set(drawn(impostor))
    assert all(labels[a] != labels[b] for a, b in some)
    share = np.bincount([labels[probe] for _, probe in some], minlength=20) / len(some)
    expected = impostor.counts.reshape(20, 10).sum(1) / impostor.counts.sum()
    assert np.abs(share - expected).max() < 0.02


def test_no_images():
    none = compare_clean(np.zeros(0, dtype=np.int64))
    assert drawn(none.genuine) == drawn(none.impostor) == []


def test_cosines_in_chunks():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = (rng.integers(0, 9, 31), rng.integers(0, 9, 31))
    truth = (rows.astype(np.float64) @ rows.T.astype(np.float64))[pairs]
    np.testing.assert_allclose(cosines(rows, rows, pairs, chunk=7), truth, atol=1e-6)
