"""Outlines of lenses, their rims and what is taken off with them: against OpenCV and SciPy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from distill.data.faces import TEMPLATE, apply
from distill.data.second.pixels import removal
from distill.data.second.pixels.face import Plane, look_at, place, plane_of
from distill.data.second.pixels.lens import (
    APART,
    BAND_BOTTOM,
    BAND_FADE,
    BAND_TOP,
    CANDIDATES,
    DROP,
    HEIGHT,
    LIFT,
    SHAPES,
    SQUARE,
    TAPER,
    WIDTH,
    arm_distance,
    beyond,
    bridge_distance,
    lens_place,
)
from distill.data.second.pixels.outline import _drawn, half_width
from distill.data.second.pixels.rims import _rim_colour, thin_lines


def outline(lens: np.ndarray, angle: np.ndarray, grown: float = 0.0) -> np.ndarray:
    """Places on the right lens, (N, 2): a superellipse, then narrowed below and raised outside."""
    power = 2 / lens[SQUARE]
    u, v = (
        (half + grown) * np.sign(wave) * np.abs(wave) ** power
        for half, wave in ((lens[WIDTH], np.cos(angle)), (lens[HEIGHT], np.sin(angle)))
    )
    below, outer = v > 0, (v <= 0) & (u > 0)
    narrowed = u * (1 - lens[TAPER] * np.minimum(v / lens[HEIGHT], 1))
    raised = v - lens[LIFT] * np.minimum(u / lens[WIDTH], 1) ** 2
    places = np.stack([np.where(below, narrowed, u), np.where(outer, raised, v)], axis=1)
    return np.asarray(places + lens[[APART, DROP]])


def turned_plane(size: int = 112, degrees: float = 0.0, scale: float = 1.0) -> Plane:
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, scale)
    plane: Plane = plane_of(apply(matrix, TEMPLATE * (size / 112)).astype(np.float32), size)
    return plane


def grid_of(p: Plane, top: int = 0, bottom: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[top : bottom or p.size, : p.size]
    return place(p, columns, rows)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_distances_from_an_outline_are_those_of_its_polygon(shape):
    lens = SHAPES[shape]
    polygon = outline(lens, np.linspace(0, 2 * np.pi, 4000)).astype(np.float32)
    off = []
    for x in np.linspace(0.02, 1.3, 50):
        for y in np.linspace(-0.6, 0.8, 50):
            away = -cv2.pointPolygonTest(polygon, (float(x), float(y)), True)
            found = beyond(lens, x, y)
            assert found == beyond(lens, -x, y)
            if abs(away) > 0.03:
                assert (found > 0) == (away > 0)
            else:
                off.append(abs(found - away))
    assert len(off) > 60
    assert np.quantile(off, 0.9) < 0.005 and max(off) < 0.03


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_bridge_and_arms_are_lines_between_and_beside_the_lenses(shape):
    lens = SHAPES[shape]
    inner = lens[APART] - lens[WIDTH]
    x = np.linspace(-inner, inner, 4001)
    # Its ends lie at the height of the upper third of the lenses, its middle is higher.
    arch = np.stack([x, lens[DROP] - 0.32 * lens[HEIGHT] - 0.05 * (1 - (x / inner) ** 2)], 1)
    for at in np.linspace(-0.9 * inner, 0.9 * inner, 9):
        middle = np.interp(at, arch[:, 0], arch[:, 1])
        for y in middle + np.linspace(-0.03, 0.03, 7):
            away = np.hypot(*(arch - (at, y)).T).min()
            assert bridge_distance(lens, at, y) == pytest.approx(away, abs=0.008)
    assert bridge_distance(lens, inner + 0.04, arch[0, 1]) > 1
    hinge = lens[APART] + 0.97 * lens[WIDTH], lens[DROP] - 0.45 * lens[HEIGHT] - 0.4 * lens[LIFT]
    ear = max(1.16, hinge[0] + 0.12), hinge[1] + 0.05
    arm = np.linspace(hinge, ear, 4001)
    rng = np.random.default_rng(0)
    for at, y in rng.uniform((0.5, -0.5), (1.4, 0.5), (40, 2)):
        away = np.hypot(*(arm - (at, y)).T).min()
        assert arm_distance(lens, at, y) == pytest.approx(away, abs=1e-3)
        assert arm_distance(lens, -at, y) == arm_distance(lens, at, y)


def seen_map(seed: int, size: int) -> np.ndarray:
    """Evidence that changes slowly enough for bilinear samples."""
    rough = np.random.default_rng(seed).uniform(0, 1, (size, size)).astype(np.float32)
    return cv2.GaussianBlur(rough, (0, 0), 1.5)


@given(
    st.integers(0, 999), st.integers(0, len(SHAPES) - 1), st.booleans(), st.floats(-20, 20),
    st.integers(0, 20),
)  # fmt: skip
@settings(max_examples=25, deadline=None, derandomize=True)
def test_an_outline_counts_what_lies_on_it_less_what_lies_beside_it(
    seed, shape, half, degrees, top
):
    """Half where brows are, none of lower rims that are missing; the weaker lens twice."""
    p, lens = turned_plane(112, degrees, 0.9), SHAPES[shape]
    seen = seen_map(seed, 112)[top:]
    angle = np.arange(36) * 10.0
    angle = np.deg2rad(angle[(angle == 0) | (angle >= 180)] if half else angle)
    weights = np.ones(len(angle)) if half else np.where(np.sin(angle) > -0.3, 1, 0.5)

    def means(grown: float) -> np.ndarray:
        x, y = outline(lens, angle, grown).T
        found = []
        for side in (-1, 1):
            columns = p.ox + side * x * p.ux * p.apart - y * p.uy
            rows = p.oy + side * x * p.uy * p.apart + y * p.ux - top
            there = ndimage.map_coordinates(seen, [rows, columns], order=1, mode="nearest")
            found.append(np.average(there, weights=weights))
        return np.array(found)

    sides = means(0.0) - 0.3 * means(-0.11) - 0.3 * means(0.11)
    assert _drawn(p, lens, seen, half, top) == pytest.approx(sides.sum() + sides.min(), abs=2e-3)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("width", [0.024, 0.036, 0.05])
def test_rims_are_as_wide_as_they_are_drawn(half, width):
    p, lens = turned_plane(224), SHAPES[0]
    x, y = grid_of(p)
    away = np.array([beyond(lens, *at) for at in zip(x.ravel(), y.ravel(), strict=True)])
    drawn = np.abs(away.reshape(x.shape)) < width
    if half:
        drawn &= y < lens[DROP]
    found = half_width(p, lens, drawn.astype(np.float32), half, 0)
    assert found == pytest.approx(width, abs=0.005)


@given(st.integers(0, 999), st.integers(0, 30), st.integers(40, 112))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_thin_lines_are_black_and_top_hats(seed, top, bottom):
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (28, 28, 3)).astype(np.uint8), (112, 112))
    p = turned_plane()
    look = look_at(image, p)
    found = thin_lines(image, p, look, top, bottom)
    reach = round(0.10 * p.unit)
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    light = image[top:bottom].astype(np.float64) @ (0.299, 0.587, 0.114)
    unit = 0.22 * look.light
    for k, how in enumerate((cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT)):
        wanted = np.minimum(cv2.morphologyEx(light, how, square) / unit, 1)
        assert np.abs(found[k] - wanted).max() < 1e-4
    share = image[top:bottom, :, ::2] / (image[top:bottom].sum(axis=2, keepdims=True) + 30.0)
    for y, x in rng.integers(0, (bottom - top, 112), (20, 2)):
        rows = np.arange(max(0, y - 2 * reach), min(bottom - top, y + 2 * reach + 1), 2)
        columns = np.arange(max(0, x - 2 * reach), min(112, x + 2 * reach + 1), 2)
        away = np.hypot(*(share[y, x] - share[np.ix_(rows, columns)].mean(axis=(0, 1))))
        assert found[2, y, x] == pytest.approx(min(away / 0.09, 1), abs=1e-4)


def test_the_colour_of_rims_is_that_of_the_lower_ones_unless_they_are_missing():
    p, lens, top = turned_plane(), CANDIDATES[300], 10
    x, y = grid_of(p)
    away = np.array([beyond(lens, *at) for at in zip(x.ravel(), y.ravel(), strict=True)])
    near = np.abs(away.reshape(x.shape)) < 0.02
    image = np.full((112, 112, 3), 170, np.uint8)
    image[near & (y > lens[DROP])], image[near & (y <= lens[DROP])] = (20, 30, 180), (190, 20, 10)
    seen = near.astype(np.float32)[top:90].copy()
    assert _rim_colour(image, p, lens, seen, False, top).tolist() == [20, 30, 180]
    assert _rim_colour(image, p, lens, seen, True, top).tolist() == [190, 20, 10]


def band_of(p: Plane) -> tuple[int, int, np.ndarray]:
    """Rows about the eyes, and what of them may change."""
    y = grid_of(p)[1]
    inside = (y >= BAND_TOP + BAND_FADE) & (y <= BAND_BOTTOM - BAND_FADE)
    rows = np.flatnonzero(inside.any(axis=1))
    return int(rows[0]), int(rows[-1]) + 1, inside


@given(st.integers(0, 999), st.floats(-30, 30))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_mask_grows_by_one_pixel_within_the_band(seed, degrees):
    p = turned_plane(112, degrees)
    top, bottom, inside = band_of(p)
    mask = (np.random.default_rng(seed).random((112, 112)) < 0.02).astype(np.uint8)
    grown = removal._grown(p, mask, top, bottom)
    cross = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(2, 1))
    assert np.array_equal(grown, cross & inside)


@given(st.integers(0, 999))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_what_touches_a_frame_joins_it_unless_that_is_too_much(seed):
    rng = np.random.default_rng(seed)
    like = rng.uniform(0, 0.5, (50, 112)).astype(np.float32)
    like[rng.integers(1, 49, 60), rng.integers(1, 111, 60)] = 0.6
    for y, x in rng.integers((4, 4), (40, 80), (6, 2)):
        like[y, x : x + rng.integers(2, 25)] = 0.9
    mask = np.zeros((112, 112), np.uint8)
    rows, columns = rng.integers(1, 49, 90), rng.integers(1, 111, 90)
    mask[rows + 20, columns] = 1
    candidates = mask.copy()
    candidates[21:69, 1:-1] |= like[1:-1, 1:-1] >= 0.55
    parts, _ = ndimage.label(candidates)
    joined = np.isin(parts, np.unique(parts[mask == 1])) & (candidates == 1)
    few = joined.sum() - mask.sum() < 0.7 * mask.sum()
    found = removal._with_joined(like, 20, mask)
    assert np.array_equal(found, joined if few else mask)


def test_a_shadow_below_a_frame_is_lifted_and_none_is_invented():
    """A shade that fades with the distance from the lower rims, on skin with an even slope."""
    p, lens = turned_plane(), SHAPES[2]
    top, bottom, inside = band_of(p)
    x, y = grid_of(p)
    mask = ((np.abs(np.abs(x) - lens[APART]) < 0.4) & (np.abs(y - 0.3) < 0.03)).astype(np.uint8)
    bare = np.rint(150 + 0.1 * np.mgrid[:112, :112][1])[..., None].repeat(3, 2)
    bare *= (1, 0.8, 0.6)
    lower = np.array([np.flatnonzero(column).max(initial=-99) for column in mask.T])
    depth = np.arange(112)[:, None] - lower
    shade = np.where((depth >= 1) & (depth <= 5), 0.7 + 0.05 * depth, 1.0)[..., None]
    shaded = np.rint(bare * shade).astype(np.uint8)
    out = shaded.copy()
    removal._lift_shadow(p, lens, mask, top, bottom, out)
    open_skin = (mask == 0) & inside
    assert np.abs(out[open_skin] - bare[open_skin]).max() <= 2
    assert np.abs(shaded[open_skin] - bare[open_skin]).max() > 35
    assert np.array_equal(out[~open_skin], shaded[~open_skin])
    for faint in (np.rint(bare), np.rint(bare * (1 - 0.2 * (1 - shade)))):
        out = faint.astype(np.uint8)
        removal._lift_shadow(p, lens, mask, top, bottom, out)
        assert np.array_equal(out, faint.astype(np.uint8))


def test_reflections_are_small_bright_and_colourless_and_not_on_eyes():
    p, lens, top = turned_plane(), SHAPES[3], 20
    look = look_at(np.full((112, 112, 3), 140, np.uint8), p)
    x, y = grid_of(p)
    inside = np.hypot((np.abs(x) - lens[APART]) / 0.3, (y - lens[DROP]) / 0.2) < 1
    eyes = np.hypot((np.abs(x) - 0.5) / 0.26, y / 0.13) < 1
    outside = np.abs(x) < 0.05
    thin = np.ones((70, 112), np.float32)
    for colour, glare in (((250,) * 3, True), ((250, 230, 205), False), ((180,) * 3, False)):
        image = np.full((112, 112, 3), colour, np.uint8)
        for seen in (thin, 0.1 * thin):
            mask = np.zeros((112, 112), np.uint8)
            removal._mark_glare(image, p, look, lens, seen, top, mask)
            band = np.arange(112)[:, None] >= top
            marked = glare and seen is thin
            assert mask[inside & ~eyes & band].mean() == float(marked)
            assert not mask[eyes | outside | ~band].any()


def test_pixels_that_look_like_rim_count_near_the_fitted_outline_only():
    p, lens, top = turned_plane(), SHAPES[1], 20
    x, y = grid_of(p)
    polygon = outline(lens, np.linspace(0, 2 * np.pi, 2000)).astype(np.float32)
    away = np.array(
        [abs(cv2.pointPolygonTest(polygon, (abs(a), b), True)) for a, b in np.c_[x.flat, y.flat]]
    ).reshape(x.shape)
    eyes = np.hypot((np.abs(x) - 0.5) / 0.22, y / 0.11) < 1
    band = (np.arange(112)[:, None] >= top) & (np.arange(112)[:, None] < 90)
    everywhere = np.ones((70, 112), np.float32)
    for half in (False, True):
        for dark in (False, True):
            mask = np.zeros((112, 112), np.uint8)
            removal._mark_rims(p, lens, 0.04, half, dark, everywhere, top, mask)
            rim = (away < 0.03) & band & ~eyes & ~(half & (y > lens[DROP] + 0.05))
            assert mask[rim].all()
            assert not mask[eyes | ~band].any()
            # Beyond bridge and arms, which have strips of their own, nothing counts.
            aside = np.abs(np.abs(x) - lens[APART]) < 0.25
            assert not mask[(away > 0.055) & aside & (y > 0.0)].any()
            if half:
                assert not mask[y > lens[DROP] + 0.05].any()
            bridge = (np.abs(x) < 0.08) & (np.abs(y - (lens[DROP] - 0.32 * lens[HEIGHT])) < 0.2)
            assert (mask[bridge].mean() > 0.45) == (not dark)
    mask = np.zeros((112, 112), np.uint8)
    removal._mark_rims(p, lens, 0.04, False, False, 0.39 * everywhere, top, mask)
    assert not mask.any()
    assert lens_place(p, 10, 20) == pytest.approx(place(p, 10, 20), rel=1e-3)
