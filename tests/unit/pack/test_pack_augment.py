"""Random changes: keyed, within their ranges, and the same in compiled code."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config.tree import DataConfig
from distill.data import augment, compiled, kernels
from distill.data.augment import NONE, ONE, Amplitudes, Changes

FULL = Amplitudes.from_config(
    DataConfig(flip_probability=0.5, shift_pixels=3, brightness=0.2, contrast=0.4)
)


def image(seed, side=112):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_changes_are_a_function_of_seed_epoch_and_sample_alone():
    ids = np.arange(50)
    together = augment.changes(7, 3, ids, FULL)
    for i in (0, 17, 49):
        alone = augment.changes(7, 3, ids[i : i + 1], FULL)
        assert all(np.array_equal(a[0], t[i]) for a, t in zip(alone, together, strict=True))
    for other in (augment.changes(8, 3, ids, FULL), augment.changes(7, 4, ids, FULL)):
        assert not np.array_equal(other.down, together.down)


def mixed(x):
    """The finaliser of SplitMix64, as published."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@pytest.mark.parametrize("key", [(0, 0, 0), (-3, 7, 2**40), (2**63, 2**20, 5)])
def test_numbers_are_those_of_earlier_releases(key):
    """In Python's integers: what a run drew before it was stopped, it draws after it."""
    golden, (state, *others) = 0x9E3779B97F4A7C15, key
    for part in others:
        state = mixed(mixed((state + golden) % 2**64) ^ part)
    expected = [mixed((state + i * golden) % 2**64) >> 32 for i in range(1, 10)]
    assert augment.draws(key[0], key[1], np.array([key[2]])).tolist() == [expected]


def test_no_two_keys_have_the_same_numbers():
    """Large, close and negative ones; nor do two numbers of one key."""
    ids = np.array([0, 1, 2, 128, 2**32, 2**40])
    seeds, epochs = (0, 1, 2, 128, 2**32, 2**64 - 1, -2), (0, 1, 2, 128, 2**20)
    drawn = [augment.draws(seed, epoch, ids) for seed in seeds for epoch in epochs]
    assert np.unique(np.concatenate(drawn)).size == 7 * 5 * 6 * 9


def test_ranges_and_distribution():
    change = augment.changes(0, 0, np.arange(20_000), FULL)
    assert np.array_equal(change.flip[:, 0], change.flip[:, 1])
    assert abs(change.flip.mean() - 0.5) < 0.02
    for shift in (change.down, change.right):
        values, counts = np.unique(shift, return_counts=True)
        assert values.tolist() == list(range(-3, 4))
        assert counts.min() > 0.9 * counts.mean()
    for gain, amplitude in ((change.contrast, 0.4), (change.brightness, 0.2)):
        assert abs(gain / ONE - 1).max() <= amplitude + 1e-4
        assert abs((gain / ONE - 1).std() - amplitude / np.sqrt(3)) < 0.01
    columns = [*change.down.T, *change.right.T, *change.contrast.T, *change.brightness.T]
    correlation = np.corrcoef(np.stack(columns))
    assert abs(correlation - np.eye(8)).max() < 0.03


def test_no_amplitude_changes_nothing():
    rgb = image(1)
    change = augment.changes(0, 5, np.arange(4), NONE)
    assert np.array_equal(augment.apply(rgb, change, 2, 1), rgb.transpose(2, 0, 1))


def test_flip_and_shift_move_pixels_as_said():
    rgb = image(2)
    change = Changes(*(np.array([[v, v]]) for v in (1, 2, -1, ONE, ONE)))
    moved = augment.apply(rgb, change, 0, 0).transpose(1, 2, 0)
    mirrored = rgb[:, ::-1]
    assert np.array_equal(moved[2:, :-1], mirrored[:-2, 1:])
    assert np.array_equal(moved[0, :-1], mirrored[0, 1:])  # the edge repeats


def test_tone_follows_the_float_formula():
    for contrast in (0.6, 1.0, 1.4):
        for brightness in (0.8, 1.0, 1.2):
            table = augment.tone_table(round(contrast * ONE), round(brightness * ONE))
            exact = ((np.arange(256) - 127.5) * contrast + 127.5) * brightness
            assert abs(table - np.clip(exact, 0, 255)).max() <= 0.51


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 1),
    st.integers(-16, 16),
    st.integers(-16, 16),
    st.integers(0, 2 * ONE),
    st.integers(0, 2 * ONE),
    st.sampled_from([32, 112, 136]),
    st.integers(0, 99),
)
def test_compiled_code_gives_the_same_pixels(flip, down, right, contrast, brightness, side, seed):
    rgb = image(seed, side)
    numbers = np.array([flip, down, right, contrast, brightness])
    change = Changes(*numbers[:, None, None].repeat(2, axis=2))
    out = np.empty((3, side, side), np.uint8)
    kernels.place(rgb, numbers, out)
    assert np.array_equal(out, augment.apply(rgb, change, 0, 0))
    grey = np.full((3, side, side), 128, np.uint8)
    grey[0] = rgb[:, :, 0]  # without colour, R, G and B are Y
    kernels.place_planes(grey, numbers, out)
    assert np.array_equal(out, augment.apply(rgb[:, :, :1].repeat(3, axis=2), change, 0, 0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_crc32_is_that_of_zlib(data, state):
    found = kernels.crc32(np.frombuffer(data, np.uint8), state, kernels.crc_tables())
    assert int(found) == zlib.crc32(data, state)


def test_without_a_place_for_machine_code_it_is_compiled_in_memory(monkeypatch):
    def njit(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(compiled, "njit", njit)
    assert compiled.compiled(abs) == (abs, {"nogil": True, "error_model": "numpy"})
