"""Alignment against independent solutions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.faces import (
    TEMPLATE,
    align,
    align_face,
    apply,
    similarity,
)
from distill.data.images import Unusable


def least_squares(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity by another way: a linear system in (a, b, tx, ty)."""
    rows, wanted = [], []
    for (x, y), (u, v) in zip(source.astype(float), target.astype(float), strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


points = st.lists(
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=5, max_size=5
).map(np.array)


@given(points)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_similarity_equals_the_linear_solution(source):
    if np.var(source, axis=0).sum() < 1:
        return
    expected = least_squares(source, TEMPLATE)
    if np.linalg.det(expected[:, :2]) < 1e-4:
        return  # the best similarity would shrink the face to a point
    assert np.allclose(similarity(source, TEMPLATE), expected, atol=1e-6, rtol=1e-6)


def test_similarity_agrees_with_opencv():
    rng = np.random.default_rng(5)
    for _ in range(20):
        turn, scale = rng.uniform(-1, 1), rng.uniform(0.3, 6)
        rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        source = TEMPLATE @ rotation.T + rng.uniform(-300, 300, 2)
        found, _ = cv2.estimateAffinePartial2D(source, TEMPLATE, method=cv2.LMEDS)
        assert np.allclose(similarity(source, TEMPLATE), found, atol=1e-3)
        assert np.allclose(apply(similarity(source, TEMPLATE), source), TEMPLATE, atol=1e-3)


@pytest.mark.parametrize("bad", [np.zeros((5, 2)), np.full((5, 2), np.nan)])
def test_landmarks_on_one_spot_are_unusable(bad):
    with pytest.raises(Unusable, match="landmarks"):
        align(np.zeros((50, 50, 3), np.uint8), bad)


def test_an_aligned_face_stays_as_it_is(picture):
    rgb = cv2.resize(picture, (112, 112))
    assert np.abs(align(rgb, TEMPLATE).astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("scale", [1.0, 2.5, 7.3, 16.0])
def test_alignment_undoes_a_known_warp(frontal, scale):
    face = frontal["P001/portrait.jpg"]
    side = round(112 * scale) + 60
    matrix = np.array([[scale, 0.1 * scale, 20.0], [-0.1 * scale, scale, 40.0]])
    photo = cv2.warpAffine(
        face.rgb, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    got = align_face(photo, apply(matrix, face.points))
    original = align_face(face.rgb, face.points)
    inner = (slice(25, 100), slice(20, 92))
    assert np.abs(got.rgb[inner].astype(int) - original.rgb[inner]).mean() < 3.5
    assert np.allclose(got.points, original.points, atol=0.05)


def test_large_photographs_are_reduced_without_aliasing():
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    got = align(stripes, TEMPLATE * 16 + 50)
    assert np.abs(got[5:-5, 5:-5].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("shift", [-4000.0, 4000.0])
def test_landmarks_outside_the_photograph_give_black(shift):
    photo = np.full((300, 300, 3), 200, np.uint8)
    assert align(photo, TEMPLATE * 3 + shift).max() == 0


def test_eyes_noses_and_mouths_are_in_their_order(frontal):
    for face in frontal.values():
        assert np.abs(face.points - TEMPLATE).max() < 8
