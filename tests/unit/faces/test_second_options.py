"""Options of second images: every limit, what compiled code gets, and other photos of a person."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.gaps import Gaps
from distill.data.second import SecondOptions
from distill.data.second.online import Partners
from distill.data.second.options import CHOICES, LIMITS, parse_options
from distill.errors import UserError

RANGES = [f.name for f in dataclasses.fields(SecondOptions) if isinstance(f.default, tuple)]


@pytest.mark.parametrize("name", LIMITS)
def test_both_limits_of_a_number_are_allowed_and_nothing_beyond(name):
    low, high = LIMITS[name]
    below, above = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
    paired = name in RANGES
    for value in ((low, low), (low, high), (high, high)) if paired else (low, high):
        assert getattr(SecondOptions(**{name: value}), name) == value
    for value in ((below, high), (low, above), (high, low)) if paired else (below, above):
        with pytest.raises(UserError, match=name):
            SecondOptions(**{name: value})
    assert low <= np.min(getattr(SecondOptions(), name))
    text = f"{name}={low}..{high}" if paired else f"{name}={high}"
    assert parse_options([text]) == {name: (low, high) if paired else high}


@given(st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_compiled_code_gets_every_field(data):
    """Choices as bits in their order, a single one as its place, numbers as they are."""
    fields = {}
    for name, (low, high) in LIMITS.items():
        ends = st.floats(low, high).map(float)
        paired = st.tuples(ends, ends).map(lambda pair: tuple(sorted(pair)))
        fields[name] = data.draw(paired if name in RANGES else ends)
    for name, allowed in CHOICES.items():
        several = st.lists(st.sampled_from(allowed), min_size=1, unique=True).map(tuple)
        fields[name] = data.draw(several if name in RANGES else st.sampled_from(allowed))
    options = SecondOptions(**fields)
    (row,) = options.numbers()
    assert set(row.dtype.names) == set(fields)
    for name, value in fields.items():
        if name not in CHOICES:
            assert np.array_equal(row[name], value)
        elif isinstance(value, tuple):
            assert {n for i, n in enumerate(CHOICES[name]) if row[name] >> i & 1} == set(value)
        else:
            assert CHOICES[name][row[name]] == value
    assert SecondOptions.from_described(options.described()) == options


def test_what_is_described_is_what_differs():
    assert SecondOptions().described() == {}
    changed = SecondOptions(cut=(0.1, 0.2), noise=0.5, mask_styles=("cloth",), glasses="draw")
    described = changed.described()
    assert described.pop("mask_styles") == ["cloth"]
    assert described == {"cut": [0.1, 0.2], "noise": 0.5, "glasses": "draw"}
    with pytest.raises(UserError, match="unknown second-image option 'fog'"):
        SecondOptions.from_described({"fog": 1})


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_partners_are_all_the_others_and_no_one_else(data):
    """Of runs in several packs, with photos left out: against a list of who is whose."""
    runs = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=7).filter(sum))
    draws = st.lists(st.integers(0, len(runs) - 1), min_size=len(runs), max_size=len(runs))
    people = np.array(data.draw(draws))
    labels = np.repeat(people, runs)
    gone = data.draw(st.sets(st.integers(0, len(labels) - 1), max_size=len(labels) - 1))
    left_out = np.array(sorted(gone), np.int64)
    partners = Partners(np.array(runs), people, Gaps(left_out))
    ids = np.setdiff1d(np.arange(len(labels)), left_out)
    assert np.array_equal(partners.label_of(ids), labels[ids])
    epochs = np.repeat(np.arange(120), len(ids))
    found = partners.of(3, epochs, np.tile(ids, 120)).reshape(120, len(ids))
    for place, sample in enumerate(ids):
        others = {int(i) for i in ids if labels[i] == labels[sample] and i != sample}
        assert set(found[:, place].tolist()) == (others or {-1})
