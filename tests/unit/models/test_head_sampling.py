"""Which classes a step is about: those of its batch, the rest by lot, known to all ranks."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import UserError
from distill.heads.rows import ClassRanges
from distill.heads.sampling import everything, sampled


@st.composite
def jobs(draw):
    """Uneven ranges of classes, labels of a step, a rate."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    bounds = tuple(sum(sizes[:i]) for i in range(len(sizes) + 1))
    labels = draw(st.lists(st.integers(-1, bounds[-1] - 1), min_size=4, max_size=4))
    rate = draw(st.floats(0.01, 1.0, exclude_max=True))
    return bounds, torch.tensor(labels).view(2, 2), rate


@settings(max_examples=200, deadline=None, derandomize=True)
@given(jobs())
def test_every_rank_knows_the_numbers_of_all_classes_taken(job):
    bounds, labels, rate = job
    ranks = [ClassRanges(bounds, rank) for rank in range(len(bounds) - 1)]
    chosen = [sampled(labels, ranges, rate, seed=7 + ranges.rank) for ranges in ranks]
    assert len({one.bounds for one in chosen}) == 1
    assert all(torch.equal(one.labels, chosen[0].labels) for one in chosen)
    taken = []
    for ranges, one in zip(ranks, chosen, strict=True):
        rows = one.rows.tolist()
        assert len(set(rows)) == len(rows)
        assert all(0 <= row < len(ranges.mine) for row in rows)
        meant = {int(y) for y in labels.flatten() if y in ranges.mine}
        assert len(rows) == max(math.ceil(rate * len(ranges.mine)), len(meant))
        taken += [ranges.mine.start + row for row in rows]
    assert len(taken) == chosen[0].bounds[-1]
    for label, number in zip(labels.flatten(), chosen[0].labels.flatten(), strict=True):
        assert (number == -1) if label < 0 else (taken[number] == label)


def test_the_same_key_draws_the_same_classes_and_another_others():
    ranges, labels = ClassRanges((0, 1000), 0), torch.tensor([[5, 900]])
    draws = [tuple(sampled(labels, ranges, 0.1, seed).rows.tolist()) for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 100


def test_all_others_are_as_likely():
    """Of 20 classes 2 are meant and 4 of 18 others are drawn: each in 2/9 of the draws."""
    ranges, labels, draws = ClassRanges((0, 20), 0), torch.tensor([[3, 11]]), 4000
    seen = Counter(
        row for seed in range(draws) for row in sampled(labels, ranges, 0.3, seed).rows.tolist()
    )
    assert seen.pop(3) == seen.pop(11) == draws
    expected = draws * 4 / 18
    deviation = sum((seen[row] - expected) ** 2 / expected for row in seen)
    assert len(seen) == 18
    assert deviation < 40.8  # of chi-squared with 17 degrees, 1 in 1000 is above


def test_a_label_beyond_the_classes_is_refused():
    with pytest.raises(UserError, match=r"label 12: must be below 12"):
        sampled(torch.tensor([[1, 12]]), ClassRanges((0, 5, 12), 1), 0.5, 0)


def test_everything_is_everything():
    labels, ranges = torch.tensor([[1, -1]]), ClassRanges((0, 5, 12), 1)
    assert everything(labels, ranges) == (ranges.bounds, None, labels)
