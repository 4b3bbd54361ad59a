"""Numbers of verification against brute force over all thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_curve

from distill.evaluate.metrics import (
    area_under_curve,
    best_threshold,
    carries,
    equal_error_rate,
    labelled,
    tar_at_far,
    ten_fold_accuracy,
)

# few different values, so that equal scores are common
tied = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=25).map(np.array)


def brute_force_tar(genuine, impostor, far):
    """The best TAR of every threshold there is, with FAR at most ``far``."""
    thresholds = [*set(genuine.tolist()), *set(impostor.tolist()), np.inf, -np.inf]
    rates = [((impostor >= t).mean(), (genuine >= t).mean()) for t in thresholds]
    return max(tar for false_accepts, tar in rates if false_accepts <= far + 1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tied, tied, st.sampled_from([0.0, 0.05, 0.1, 0.2, 1 / 3, 0.5, 0.9, 1.0]))
def test_tar_at_far_is_exact_with_ties(genuine, impostor, far):
    expected = brute_force_tar(genuine, impostor, far)
    assert tar_at_far(genuine, impostor, np.array([far]))[0] == pytest.approx(expected, abs=1e-12)


def test_tar_at_far_on_random_scores_and_by_the_library_curve():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(1.5, 1, 400), rng.normal(0, 1, 3000)
    fars = np.array([0.1, 0.01, 0.001])
    far, tar, _ = roc_curve(*labelled(genuine, impostor), drop_intermediate=False)
    library = [tar[far <= f + 1e-12].max() for f in fars]
    np.testing.assert_allclose(tar_at_far(genuine, impostor, fars), library)


def test_far_counts_whole_impostors_in_spite_of_rounding():
    impostor = np.arange(30.0)
    # 0.1 * 30 is 3.0000000000000004 or 2.9999999999999996 depending on the order of operations
    assert tar_at_far(np.array([25.5, 26.5]), impostor, np.array([0.1]))[0] == 0.5
    assert tar_at_far(np.array([26.0, 26.5]), impostor, np.array([3 / 30]))[0] == 0.5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tied, tied)
def test_auc_counts_ties_half(genuine, impostor):
    wins = (genuine[:, None] > impostor).mean() + 0.5 * (genuine[:, None] == impostor).mean()
    assert area_under_curve(genuine, impostor) == pytest.approx(wins)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tied, tied)
def test_eer_lies_where_the_curves_cross(genuine, impostor):
    rate = equal_error_rate(genuine, impostor)
    thresholds = [-np.inf, *sorted({*genuine.tolist(), *impostor.tolist()}), np.inf]
    far = np.array([(impostor >= t).mean() for t in thresholds])
    frr = np.array([(genuine < t).mean() for t in thresholds])
    last = np.flatnonzero(far >= frr)[-1]
    low = max(frr[last], far[last + 1])
    high = min(far[last], frr[last + 1])
    assert min(low, high) - 1e-12 <= rate <= max(low, high) + 1e-12


def test_eer_of_known_distributions():
    """Two unit normals d apart: EER = Phi(-d / 2)."""
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(2, 1, 40_000), rng.normal(0, 1, 40_000)
    assert equal_error_rate(genuine, impostor) == pytest.approx(0.158655, abs=0.004)
    far, tar, _ = roc_curve(*labelled(genuine, impostor))
    assert area_under_curve(genuine, impostor) == pytest.approx(auc(far, tar))


def test_perfect_and_reversed_scores():
    high, low = np.linspace(2, 3, 20), np.linspace(0, 1, 50)
    assert equal_error_rate(high, low) == 0
    assert equal_error_rate(low, high) == 1
    assert ten_fold_accuracy(high, low) == (1.0, 0.0)
    assert tar_at_far(high, low, np.array([0.0]))[0] == 1


def test_best_threshold_against_all_thresholds():
    rng = np.random.default_rng(2)
    same, scores = labelled(rng.integers(0, 9, 30).astype(float), rng.integers(0, 7, 30) * 1.0)
    chosen = best_threshold(same, scores)
    highest = max(np.mean((scores >= t) == same) for t in [*set(scores.tolist()), np.inf])
    assert np.mean((scores >= chosen) == same) == highest
    assert chosen not in scores


def test_ten_fold_accuracy_of_chance_and_of_a_known_overlap():
    rng = np.random.default_rng(3)
    chance, _ = ten_fold_accuracy(rng.normal(0, 1, 5000), rng.normal(0, 1, 5000))
    assert chance == pytest.approx(0.5, abs=0.02)
    known, spread = ten_fold_accuracy(rng.normal(2, 1, 5000), rng.normal(0, 1, 9000))
    assert known == pytest.approx(1 - 0.158655, abs=0.015) and 0 < spread < 0.05


def test_ten_folds_of_which_one_has_a_wrong_pair():
    """Of ten genuine pairs one looks like none; its tenth, two pairs, is half wrong."""
    genuine, impostor = np.array([2.0] * 9 + [-1.0]), np.zeros(10)
    accuracy, spread = ten_fold_accuracy(genuine, impostor)
    assert accuracy == pytest.approx((9 * 1.0 + 0.5) / 10)
    assert spread == pytest.approx(np.sqrt((9 * 0.05**2 + 0.45**2) / 10))


def test_ten_folds_accept_a_score_at_the_threshold():
    """Of scores 2 and 0 the threshold is 1, and a pair with just that score is accepted."""
    assert ten_fold_accuracy(np.array([2.0] * 19 + [1.0]), np.zeros(20)) == (1.0, 0.0)


def test_ten_expected_accepts_carry_a_far_in_spite_of_rounding():
    """1 / 249 * 2490 is less than 10 in floating point, as are some more of these."""
    one_in = np.arange(2, 1000)
    assert all(carries(10 * n, 1 / n) and not carries(10 * n - 1, 1 / n) for n in one_in.tolist())


def test_what_a_number_of_pairs_carries():
    assert carries(100, 0.1) and carries(1000, 0.01) and carries(100_000, 0.0001)
    assert not carries(99, 0.1) and not carries(99_999, 0.0001)
