"""Random numbers, filters and holes of second images: against libraries and published numbers."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from distill.data.faces import TEMPLATE
from distill.data.second.pixels.draws import (
    bits,
    choice_of,
    grainy,
    hills,
    joined,
    stream,
    uniform,
)
from distill.data.second.pixels.face import look_at, plane_of
from distill.data.second.pixels.filters import convolved, smoothed
from distill.data.second.pixels.inpaint import fill
from distill.data.second.pixels.jpeg import coded
from distill.data.second.pixels.resample import enlargement, gaussian, reduction, through


def test_streams_are_those_of_splitmix64():
    """Numbers of the reference implementation for the seed 1234567 (Rosetta Code)."""
    state = stream(np.uint64(1234567))
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    published += [4593380528125082431, 16408922859458223821]
    assert [int(bits(state)) for _ in published] == published
    assert uniform(stream(np.uint64(1234567))) == (published[0] >> 11) / 2**53
    # Two numbers make one key as two steps of the same mixing do.
    first = int(bits(stream(np.uint64(7))))
    key = np.uint64((first ^ 9) - 0x9E3779B97F4A7C15 & 2**64 - 1)
    assert joined(np.uint64(7), np.int64(9)) == bits(stream(key))


def test_noise_of_pixels_is_normal_and_differs_from_pixel_to_pixel():
    key = np.uint64(5)
    drawn = np.array([[grainy(key, x, y) for x in range(-60, 60)] for y in range(-60, 60)])
    far = 4 / np.sqrt(drawn.size)
    assert abs(drawn.mean()) < far and abs(drawn.std() - 1) < far
    assert abs((drawn**4).mean() - 2.7) < 0.15  # 3 - 6 / (5 n) of n uniform numbers
    assert np.abs(drawn).max() < np.sqrt(12)
    for shifted in (drawn[1:, :-1], drawn[:-1, 1:], drawn[::-1, ::-1][1:, 1:], drawn.T[1:, 1:]):
        assert abs(np.corrcoef(drawn[:-1, :-1].ravel(), shifted.ravel())[0, 1]) < far


def test_hills_are_smooth_and_one_unit_wide():
    key = np.uint64(3)
    fine = np.arange(-8, 8, 1 / 16)
    field = np.array([[hills(key, x, y) for x in fine] for y in fine])
    assert abs(field.mean()) < 0.2 and abs(field.std() - 1.15) < 0.15
    for axis in (0, 1):
        steps = np.diff(field, axis=axis)
        # The steepest step falls between the outermost heights, at 15/8 of their mean slope.
        assert np.abs(steps).max() < 15 / 8 / 16 * 1.5 * 2 * np.sqrt(12)
        # On the lattice it is level.
        assert np.abs(np.take(steps, range(0, 240, 16), axis)).max() < 0.02
        near, far = (
            np.mean(np.take(field, range(256 - gap), axis) * np.take(field, range(gap, 256), axis))
            for gap in (4, 24)
        )
        assert near > 0.95 and abs(far) < 0.2
    for x, y in ((-3, 2), (0, 0), (5, -7)):
        assert hills(key, float(x), float(y)) == 1.5 * grainy(key, x, y)


@given(st.sets(st.integers(0, 61), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_each_allowed_choice_comes_as_often_as_the_others(allowed):
    state, mask = stream(np.uint64(1)), sum(1 << place for place in allowed)
    drawn = [choice_of(state, mask) for _ in range(600)]
    shares = np.bincount(drawn, minlength=62)[sorted(allowed)] / 600
    assert set(drawn) <= allowed
    assert np.abs(shares - 1 / len(allowed)).max() < 4.5 * np.sqrt(0.25 / 600)


def noise_image(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(st.integers(0, 99), st.integers(20, 60), st.integers(20, 60), st.floats(2.0, 9.0))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_wide_blur_is_three_boxes_whose_variances_add_up(seed, height, width, sigma):
    image = noise_image(seed, height, width).astype(np.float32)
    best = None
    for side in range(1, 31, 2):  # all pairs of odd widths that differ by 2 and may be mixed
        for narrow in range(4):
            sides = [side] * narrow + [side + 2] * (3 - narrow)
            off = abs(sum((w * w - 1) / 12 for w in sides) - sigma**2)
            if side <= np.sqrt(4 * sigma**2 + 1) < side + 2 and (best is None or off < best[0]):
                best = (off, sides)
    wanted = image
    for side in best[1]:
        wanted = cv2.blur(wanted, (side, side), borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(smoothed(image, sigma) - wanted).max() < 0.02


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 5, 9]))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_convolution_is_opencvs(seed, height, width, side):
    image, out = noise_image(seed, height, width), np.empty((height, width, 3), np.uint8)
    kernel = np.random.default_rng(seed).normal(0.1, 0.3, (side, side)).astype(np.float32)
    kernel[0, 0] = 0
    convolved(image, kernel, out)
    reach = side // 2
    mirrored = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    wanted = cv2.filter2D(mirrored.astype(np.float64), -1, kernel.astype(np.float64))
    wanted = np.clip(wanted[reach : reach + height, reach : reach + width], 0, 255)
    assert np.abs(out - wanted).max() <= 0.5 + 1e-3


@given(st.integers(8, 60), st.integers(61, 120), st.floats(0.4, 6.0))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_resampling_is_that_of_pillow_and_opencv(small, large, sigma):
    image = noise_image(small, large, large).astype(np.float32)
    less = through(reduction(large, small), image)
    theirs = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    assert np.abs(less - theirs).max() < 0.01
    more = through(enlargement(small, large), less)[..., 0]
    # Pillow's bicubic has a = -0.5 too, but leaves out what lies beyond the edge.
    theirs = np.asarray(Image.fromarray(less[..., 0]).resize((large, large), Image.BICUBIC))
    edge = int(np.ceil(2 * large / small))
    assert np.abs(more - theirs)[edge:-edge, edge:-edge].max(initial=0) < 0.01
    wide = np.pad(less[..., 0], 8, mode="edge")
    padded_side = round(large * (small + 16) / small)
    if padded_side * small == large * (small + 16):
        theirs = np.asarray(Image.fromarray(wide).resize((padded_side, padded_side), Image.BICUBIC))
        cut = (padded_side - large) // 2
        assert np.abs(more - theirs[cut:-cut, cut:-cut]).max() < 0.01
    blurred = through(gaussian(large, sigma), image)
    theirs = ndimage.gaussian_filter(
        image.astype(np.float64), (sigma, sigma, 0), mode="mirror", truncate=3.5 + 0.5 / sigma
    )
    assert np.abs(blurred - theirs).max() < 0.15


@pytest.mark.parametrize("quality", [5, 30, 50, 80])
def test_nearly_every_pixel_of_a_smooth_jpeg_is_that_of_libjpeg(quality):
    """Here hardly any coefficient lies half-way between two steps, where roundings decide."""
    rows, columns = np.mgrid[:48, :64] / 9.0
    waves = [120 + 60 * np.sin(rows * (k + 1) / 2 + k) + 40 * np.cos(columns + k) for k in range(3)]
    rgb = np.clip(np.stack(waves, axis=2), 0, 255).astype(np.uint8)
    file, out = io.BytesIO(), np.empty_like(rgb)
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    coded(rgb, quality, out)
    apart = np.abs(out.astype(int) - np.asarray(Image.open(file))).max(axis=2)
    assert np.mean(apart <= 2) > 0.9


@given(st.integers(0, 10_000), st.sampled_from([48, 112]))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_holes_are_filled_from_around_them(seed, size):
    """A slope goes on through a hole, colours stay between those around, nothing else changes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    slope = rng.uniform(-60, 60, (2, 3))
    flat = 128 + (rows - 0.5)[..., None] * slope[0] + (columns - 0.5)[..., None] * slope[1]
    image = np.rint(flat).astype(np.uint8)
    p = plane_of(TEMPLATE * np.float32(size / 112), size)
    look = look_at(image, p)._replace(grain=0.0)
    top, bottom = size // 5, 4 * size // 5
    mask = np.zeros((size, size), np.uint8)
    for _ in range(4):
        y, x = rng.integers(top, bottom), rng.integers(0, size)
        mask[y : min(y + rng.integers(1, 7), bottom), x : x + rng.integers(1, 7)] = 1
    out = image.copy()
    out[mask == 1] = rng.integers(0, 256, 3)
    fill(p, look, mask, top, bottom, np.uint64(1), out)
    assert np.array_equal(out[mask == 0], image[mask == 0])
    inside = ndimage.binary_erosion(mask == 0, iterations=1, border_value=1) == 0
    assert out[mask == 1].min() >= image[inside].min() - 1 - np.abs(slope).max() / 5
    away = np.abs(out[mask == 1] - flat[mask == 1])
    at_edge = mask[:, :2].any() or mask[:, -2:].any() or mask[top].any() or mask[bottom - 1].any()
    # Beyond an edge of the image nothing is known: the colour stays level there.
    assert away.max() < (8 if at_edge else 2.5)


def test_what_fills_a_hole_has_the_grain_of_the_skin():
    image = np.full((112, 112, 3), 128, np.uint8)
    p = plane_of(TEMPLATE, 112)
    mask = np.zeros((112, 112), np.uint8)
    mask[40:70, 30:80] = 1
    out = image.copy()
    fill(p, look_at(image, p)._replace(grain=10.0), mask, 30, 80, np.uint64(2), out)
    assert abs(out[mask == 1].astype(float).std() - 0.4 * 10) < 0.3
    assert (out[mask == 1].max(axis=1) == out[mask == 1].min(axis=1)).all()  # grey, as light is
