"""`blur`: what lenses, hands, small sensors and codecs do to a face."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import between, bits, choice_of, grainy, uniform
from distill.data.second.pixels.filters import as_byte, as_floats, convolved
from distill.data.second.pixels.jpeg import coded
from distill.data.second.pixels.resample import enlargement, gaussian, reduction, through

TEMPLATE_SIDE = 112
"""Side of the face whose pixels the options speak of."""
ANTIALIAS = 8
"""Each pixel of a kernel is the mean of this many points squared."""
GAUSSIAN, MOTION, DEFOCUS, RESIZE, JPEG, NOISE = range(6)
GAMMA = 2.2
_LINEAR = ((np.arange(256) / 255.0) ** GAMMA).astype(np.float32)
"""Light of each of the 256 values, 0 .. 1."""
_VALUES = (255.0 * (np.arange(2049) / 2048.0) ** (2 / GAMMA)).astype(np.float32)
"""The value of light l at place 2048 sqrt(l)."""


@compiled
def blur(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """One style of a random strength, perhaps with a sensor's noise; see `kinds`."""
    o = options[0]
    scale = image.shape[0] / TEMPLATE_SIDE
    style = choice_of(state, o.blur_styles)
    told[0] = style
    share, degrees, key = uniform(state), between(state, 0.0, 180.0), bits(state)
    if style == GAUSSIAN:
        told[1] = _within(o.gaussian_sigma, share)
        _through(image, gaussian(image.shape[0], told[1] * scale), out)
    elif style == MOTION:
        told[1] = _within(o.motion_length, share)
        convolved(image, motion_kernel(max(1.0, told[1] * scale), degrees), out)
    elif style == DEFOCUS:
        told[1] = _within(o.defocus_radius, share)
        convolved(image, disc_kernel(told[1] * scale), out)
    elif style == RESIZE:
        told[1] = round(_within(o.resize_side, share))
        _down_and_up(image, max(2, round(told[1])), out)  # whatever the size of the image
    noisy = uniform(state) < o.noise or style == NOISE
    electrons = np.exp(between(state, np.log(o.shot_electrons[0]), np.log(o.shot_electrons[1])))
    read = between(state, o.read_electrons[0], o.read_electrons[1])
    if noisy:
        told[2], told[3] = electrons, read
        sensor_noise(out, electrons, read, key)
    if style == JPEG:
        told[1] = round(_within(o.jpeg_quality, share))
        coded(out.copy(), told[1], out)


@compiled
def _within(ends: Any, share: Any) -> Any:
    return ends[0] + (ends[1] - ends[0]) * share


@compiled
def motion_kernel(length: Any, degrees: Any) -> Any:
    """A straight streak of a round pen one pixel wide, ``length`` >= 1 pixels; odd side, sum 1."""
    side = 2 * int(np.ceil(length / 2)) + 1
    turn = np.deg2rad(degrees)
    half, c, s = (length - 1) / 2, np.cos(turn), np.sin(turn)
    kernel = np.zeros((side, side), np.float32)
    fine = side * ANTIALIAS
    for i in range(fine):
        for j in range(fine):
            y, x = (i + 0.5) / ANTIALIAS - side / 2, (j + 0.5) / ANTIALIAS - side / 2
            along = min(max(x * c + y * s, -half), half)
            if np.hypot(x - along * c, y - along * s) <= 0.5:
                kernel[i // ANTIALIAS, j // ANTIALIAS] += 1
    return kernel / kernel.sum()


@compiled
def disc_kernel(radius: Any) -> Any:
    """An evenly lit disc, as an open aperture draws a point out of focus; odd side, sum 1."""
    side = 2 * int(np.ceil(radius)) + 1
    kernel = np.zeros((side, side), np.float32)
    fine = side * ANTIALIAS
    for i in range(fine):
        for j in range(fine):
            y, x = (i + 0.5) / ANTIALIAS - side / 2, (j + 0.5) / ANTIALIAS - side / 2
            if x * x + y * y <= radius * radius:
                kernel[i // ANTIALIAS, j // ANTIALIAS] += 1
    return kernel / kernel.sum()


@compiled
def _through(image: Any, matrix: Any, out: Any) -> None:
    """A row and column filter on a uint8 image."""
    result = through(matrix, as_floats(image))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(3):
                out[y, x, c] = as_byte(result[y, x, c])


@compiled
def _down_and_up(image: Any, side: Any, out: Any) -> None:
    """Through ``side`` pixels and back."""
    n = image.shape[0]
    if side >= n:
        return
    small = through(reduction(n, side), as_floats(image))
    large = through(enlargement(side, n), small)
    for y in range(n):
        for x in range(n):
            for c in range(3):
                out[y, x, c] = as_byte(large[y, x, c])


@compiled
def sensor_noise(image: Any, electrons: Any, read: Any, key: Any) -> None:
    """Shot and read noise, in place: the eye of the camera counts ``electrons`` for white.

    The count of light l has variance l * electrons + read^2 (Janesick, "Photon Transfer", 2007).
    """
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                count = _LINEAR[image[y, x, c]] * electrons
                count += np.sqrt(count + read * read) * grainy(key, 3 * x + c, y)
                light = min(max(count / electrons, 0.0), 1.0)
                image[y, x, c] = np.uint8(_VALUES[int(2048 * np.sqrt(light) + 0.5)] + 0.5)
