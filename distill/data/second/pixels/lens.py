"""Outlines of spectacle lenses, and how far a place is from them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.face import place
from distill.data.second.pixels.filters import clipped, step

BAND_TOP, BAND_BOTTOM = -0.52, 0.66
"""Rows that drawn or removed frames may touch, above and below the eye line, in units."""
BAND_FADE = 0.03
FAR = 9.0
"""Distance of what is too far from a lens to matter, in units."""

WIDTH, HEIGHT, SQUARE, APART, DROP, TAPER, LIFT = range(7)
"""Columns of a lens: half axes of a superellipse and its exponent (2 is an ellipse, more is closer
to a rectangle); its middle at (+-apart, drop); how much narrower its lower half is; how far its
outer upper corner is raised. Lengths in units."""
SHAPES = np.array(
    [
        [0.36, 0.35, 2.0, 0.51, 0.07, 0.00, 0.00],
        [0.40, 0.29, 2.2, 0.51, 0.05, 0.00, 0.00],
        [0.43, 0.25, 4.5, 0.53, 0.06, 0.00, 0.00],
        [0.44, 0.31, 3.2, 0.53, 0.06, 0.14, 0.00],
        [0.45, 0.37, 2.5, 0.54, 0.10, 0.16, 0.00],
        [0.42, 0.28, 2.8, 0.53, 0.05, 0.06, 0.12],
    ]
)
"""Round, oval, rectangle, wayfarer, aviator, cat-eye: after 50 mm lenses on eyes 63 mm apart."""
CANDIDATES = np.array(
    [
        (width, height, square, max(width + gap, 0.44), drop, 0.0, 0.0)
        for square, width, height, drop, gap in product(
            (2.0, 2.6, 4.0),
            (0.33, 0.37, 0.41, 0.45, 0.49),
            (0.23, 0.27, 0.31, 0.35, 0.39),
            (-0.01, 0.04, 0.09, 0.14),
            (0.08, 0.13),
        )
        if width + gap <= 0.62
    ]
)
"""Lenses that the finder tries, (K, 7)."""


@compiled
def beyond(lens: Any, x: Any, y: Any) -> Any:
    """Signed distance from the outline of the nearer lens, about: below 0 inside; in units.

    Of first order: (F - 1) / |grad F| of the superellipse's equation F = 1 (Taubin, "Estimation of
    planar curves", IEEE PAMI 13(11), 1991).
    """
    u, v = abs(x) - lens[APART], y - lens[DROP]
    if v > 0:
        u /= 1 - lens[TAPER] * min(v / lens[HEIGHT], 1.0)
    elif u > 0:
        v += lens[LIFT] * min(u / lens[WIDTH], 1.0) ** 2
    power = lens[SQUARE]
    a, b = abs(u) / lens[WIDTH], abs(v) / lens[HEIGHT]
    largest = max(a, b)
    if largest < 0.5 or largest > 1.6:  # far from the outline: no powers needed
        return -FAR if largest < 1 else FAR
    a1, b1 = a ** (power - 1), b ** (power - 1)
    f = (a * a1 + b * b1) ** (1 / power)
    slope = np.hypot(a1 / lens[WIDTH], b1 / lens[HEIGHT]) * f ** (1 - power)
    return (f - 1) / slope


@compiled
def line_distance(x: Any, y: Any, x0: Any, y0: Any, x1: Any, y1: Any) -> Any:
    """Distance from a line between two places."""
    dx, dy = x1 - x0, y1 - y0
    t = clipped(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-12), 0.0, 1.0)
    return np.hypot(x - x0 - t * dx, y - y0 - t * dy)


@compiled
def bridge_distance(lens: Any, x: Any, y: Any) -> Any:
    """Distance from the arch between the lenses; large beside it."""
    inner = lens[APART] - lens[WIDTH]
    if abs(x) > inner + 0.03:
        return FAR
    arch = lens[DROP] - 0.32 * lens[HEIGHT] - 0.05 * (1 - (x / inner) ** 2)
    slope = 0.1 * x / (inner * inner)
    return abs(y - arch) / np.sqrt(1 + slope * slope)


@compiled
def arm_distance(lens: Any, x: Any, y: Any) -> Any:
    """Distance from the foreshortened arms, from hinge to ear."""
    hinge_x = lens[APART] + 0.97 * lens[WIDTH]
    hinge_y = lens[DROP] - 0.45 * lens[HEIGHT] - 0.4 * lens[LIFT]
    return line_distance(abs(x), y, hinge_x, hinge_y, max(1.16, hinge_x + 0.12), hinge_y + 0.05)


@compiled
def band(y: Any) -> Any:
    """1 in the rows about the eyes, 0 outside, a short fade between."""
    return step(y, BAND_TOP, BAND_TOP + BAND_FADE) * step(y, BAND_BOTTOM, BAND_BOTTOM - BAND_FADE)


@compiled
def lens_place(p: Any, column: Any, row: Any) -> Any:
    """Face coordinates of a pixel with x as if the eyes were seen from the front."""
    x, y = place(p, column, row)
    return x / max(p.apart, 0.45), y
