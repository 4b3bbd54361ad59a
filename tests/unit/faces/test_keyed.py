"""Keyed random numbers: equal keys, equal streams; and nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.keyed import first_integers, first_randoms, keyed_rng

parts = st.lists(st.one_of(st.integers(), st.text(max_size=5), st.binary(max_size=5)), max_size=4)


def test_the_same_in_another_process():
    make = "keyed_rng(7, 'é', b'x').random(3).tolist()"
    code = f"from distill.data.keyed import keyed_rng; print({make})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(keyed_rng(7, "é", b"x").random(3).tolist())


def test_the_stream_is_the_one_that_is_described():
    """Packs and runs of earlier releases are made again by it."""
    hashed = b"".join(
        kind + len(body).to_bytes(8, "little") + body
        for kind, body in ((b"i", b"-70"), (b"s", "é".encode()), (b"b", b"x\0"))
    )
    key = int.from_bytes(hashlib.blake2b(hashed, digest_size=16).digest(), "little")
    expected = np.random.Generator(np.random.Philox(key=key)).random(3)
    assert np.array_equal(keyed_rng(-70, "é", b"x\0").random(3), expected)


@given(parts, parts)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_streams_are_equal_exactly_where_keys_are(a, b):
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (keyed_rng(*a).integers(2**63) == keyed_rng(*b).integers(2**63)) == same


@given(st.integers(), st.lists(st.text(max_size=5), max_size=20), st.text(max_size=5))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_first_randoms_are_those_of_generators(before, names, after):
    drawn = [keyed_rng(before, name, after).random() for name in names]
    assert first_randoms(before, iter(names), after).tolist() == drawn


bounds = st.one_of(
    st.integers(1, 50), st.integers(1, 2**32), st.sampled_from([1, 2**31 + 1, 2**32])
)
"""Where the bound is 2**31 + 1, half of the draws are refused, and others taken."""


@given(st.integers(), st.lists(st.tuples(st.text(max_size=5), bounds), max_size=20), parts)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_first_integers_are_those_of_generators(before, named, after):
    names, below = [name for name, _ in named], np.array([bound for _, bound in named], np.int64)
    drawn = [int(keyed_rng(before, name, *after).integers(bound)) for name, bound in named]
    assert first_integers(below, before, names, *after).tolist() == drawn


def test_parts_do_not_run_into_each_other():
    keys = [(1, 23), (12, 3), (123,), ("1", "23"), ("12", "3"), (b"12", b"3"), ("123",)]
    assert len({int(keyed_rng(*k).integers(2**63)) for k in keys}) == len(keys)


def test_odd_file_names_and_huge_numbers_are_keys():
    keyed_rng("\udcff\n'\"", -(2**200), 2**200).random()


def test_global_state_is_left_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    keyed_rng("a").random(100)
    assert np.array_equal(before, np.random.get_state()[1])
