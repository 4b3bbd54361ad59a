"""Near duplicates against brute force, and on faces that were saved again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import duplicates
from distill.data.duplicates import (
    MAX_BITS,
    Union,
    alike,
    candidates,
    correlation,
    face_hash,
    groups,
)
from distill.data.images import decode, encode_jpeg


def face(seed):
    """A smooth picture as different from others as faces are."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 230, (7, 7, 3), dtype=np.uint8)
    return cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)


def brute(hashes):
    n = len(hashes)
    return {
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= MAX_BITS
    }


def components(n, pairs):
    """Smallest member of each component, by spreading until nothing changes."""
    root = list(range(n))
    changed = True
    while changed:
        changed = False
        for i, j in pairs:
            low = min(root[i], root[j])
            changed |= root[i] != low or root[j] != low
            root[i] = root[j] = low
    return root


def scattered(rng, count):
    """Hashes around a few centres, at distances 0 to 6 bits."""
    centres = [rng.getrandbits(64) for _ in range(4)]
    made = []
    for _ in range(count):
        value = rng.choice(centres)
        for bit in rng.sample(range(64), rng.randint(0, 6)):
            value ^= 1 << bit
        made.append(value)
    return np.array(made, np.uint64)


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_groups_are_those_of_brute_force(rng, count):
    hashes = scattered(rng, count)
    close = brute(hashes)
    pairs = list(candidates(hashes))
    assert set(pairs) <= close and len(pairs) == len(set(pairs))
    assert groups(hashes).tolist() == components(count, close)


def test_hashes_of_few_patterns_are_not_all_compared(monkeypatch):
    """As faces have few in their low frequencies: 16 bits, of which 2**16 patterns might be."""
    rng, compared, real = np.random.default_rng(0), [], duplicates._close_pairs

    def counted(hashes, keys):
        sizes = np.unique(hashes & keys[-1], return_counts=True)[1]
        compared.append(int((sizes * (sizes - 1) // 2).sum()))
        return real(hashes, keys)

    monkeypatch.setattr(duplicates, "_close_pairs", counted)
    patterns, count = rng.integers(0, 1 << 16, 16).astype(np.uint16), 2000
    hashes = patterns[rng.integers(0, 16, (count, 4))].view(np.uint64)[:, 0]
    list(candidates(hashes))
    by_quarters = 4 * count * (count - 1) / 2 / 16
    assert 0 < sum(compared) < by_quarters / 10


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 25))
def test_only_confirmed_pairs_count(rng, count):
    hashes = np.unique(scattered(rng, count))
    fine = {pair for pair in brute(hashes) if sum(pair) % 3}
    found = groups(hashes, lambda i, j: (i, j) in fine)
    assert found.tolist() == components(len(hashes), fine)


def test_a_million_copies_take_no_time():
    assert groups(np.zeros(200_000, np.uint64)).max() == 0


def test_union_is_the_smallest():
    union = Union(6)
    for pair in ((5, 4), (4, 2), (1, 3)):
        union.join(*pair)
    assert union.roots().tolist() == [0, 1, 2, 1, 2, 2]


@pytest.mark.parametrize("seed", range(12))
def test_faces_saved_again_are_found_and_others_are_not(seed):
    rgb = face(seed)
    again = decode(encode_jpeg(rgb, 60))
    brighter = np.clip(rgb * 1.05 + 4, 0, 255).astype(np.uint8)
    hashes = np.array(
        [face_hash(each) for each in (rgb, again, brighter, face(seed + 100))], np.uint64
    )
    assert groups(hashes).tolist() == [0, 0, 0, 3]
    assert alike(rgb, again) and alike(rgb, brighter)
    assert not alike(rgb, face(seed + 100))


def test_correlation_is_that_of_numpy():
    one, other = face(1), face(2)
    small = [
        cv2.resize(
            cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float32), (32, 32),
            interpolation=cv2.INTER_AREA,
        ).ravel().astype(np.float64)
        for each in (one, other)
    ]  # fmt: skip
    assert correlation(one, other) == pytest.approx(np.corrcoef(*small)[0, 1], abs=1e-5)
    flat = np.full((112, 112, 3), 7, np.uint8)
    assert correlation(flat, flat) == 1.0 and correlation(flat, one) == 0.0
