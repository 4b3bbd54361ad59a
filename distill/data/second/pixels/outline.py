"""The outline of a pair of lenses, fitted to where an image shows rims."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.filters import clipped
from distill.data.second.pixels.lens import (
    APART,
    CANDIDATES,
    DROP,
    HEIGHT,
    LIFT,
    SQUARE,
    TAPER,
    WIDTH,
    beyond,
    lens_place,
)

POINTS = 36
"""Places on an outline that are looked at."""
BESIDE = 0.11
"""Distance from a rim at which there should be none, in units."""
STEPS = np.array([0.05, 0.05, 0.8, 0.05, 0.05, 0.06, 0.06])
"""First step of the search in each column of a lens; halved `HALVINGS` times."""
LEAST = np.array([0.24, 0.17, 1.7, 0.36, -0.12, 0.0, 0.0])
MOST = np.array([0.56, 0.46, 5.5, 0.68, 0.26, 0.24, 0.16])
HALVINGS, ROUNDS = 3, 3
THINNEST, THICKEST = 0.02, 0.06
"""Bounds of half the width of a rim, in units."""


@compiled
def fitted(p: Any, seen: Any, half: Any, top: Any) -> Any:
    """The lens on whose outline ``seen`` is largest, and less so on both sides of it; and how much.

    The best of `CANDIDATES`, then a coordinate search with halved steps; of heads that are seen
    from the front (see `worn_of`).

    Args:
        p: coordinates of the face.
        seen: how much each pixel looks like rim, (h, S), of the rows from ``top`` on.
        half: whether the lower rims are missing.
        top: first row.
    """
    best, score = CANDIDATES[0].copy(), -1.0
    for lens in CANDIDATES:
        found = _drawn(p, lens, seen, half, top)
        if found > score:
            best, score = lens.copy(), found
    for halving in range(HALVINGS):
        for _ in range(ROUNDS):
            before = score
            for column in range(len(best)):
                for sign in (-1.0, 1.0):
                    tried = best.copy()
                    tried[column] += sign * STEPS[column] * 0.5**halving
                    tried[column] = clipped(tried[column], LEAST[column], MOST[column])
                    tried[APART] = max(tried[APART], tried[WIDTH] + 0.03)
                    found = _drawn(p, tried, seen, half, top)
                    if found > score:
                        best, score = tried, found
            if score == before:
                break
    return best, score


@compiled
def _drawn(p: Any, lens: Any, seen: Any, half: Any, top: Any) -> Any:
    """How clearly rims are drawn on the outline; brows lie along its upper half, which counts less.

    What is over a half of one lens and not of the other is a brow or a lock of hair: the weaker
    lens counts double.
    """
    sides = np.zeros(2)
    total = 0.0
    for k in range(POINTS):
        angle = 2 * np.pi * k / POINTS
        if half and np.sin(angle) > 0.1:
            continue
        weight = 1.0 if half or np.sin(angle) > -0.3 else 0.5
        total += weight
        for side in range(2):
            here = _seen_at(p, lens, seen, top, angle, side, 0.0)
            inside = _seen_at(p, lens, seen, top, angle, side, -BESIDE)
            outside = _seen_at(p, lens, seen, top, angle, side, BESIDE)
            sides[side] += weight * (here - 0.3 * inside - 0.3 * outside)
    return (sides[0] + sides[1] + min(sides[0], sides[1])) / total


@compiled
def _seen_at(p: Any, lens: Any, seen: Any, top: Any, angle: Any, side: Any, grown: Any) -> Any:
    """``seen`` at a place on the outline of a lens that is grown by a length; between pixels."""
    power = 2 / lens[SQUARE]
    across, down = np.cos(angle), np.sin(angle)
    u = (lens[WIDTH] + grown) * np.sign(across) * abs(across) ** power
    v = (lens[HEIGHT] + grown) * np.sign(down) * abs(down) ** power
    if v > 0:
        u *= 1 - lens[TAPER] * min(v / lens[HEIGHT], 1.0)
    elif u > 0:
        v -= lens[LIFT] * min(u / lens[WIDTH], 1.0) ** 2
    x = (2 * side - 1) * (lens[APART] + u) * max(p.apart, 0.45)
    y = lens[DROP] + v
    column = clipped(p.ox + x * p.ux - y * p.uy, 0.0, seen.shape[1] - 1.001)
    row = clipped(p.oy + x * p.uy + y * p.ux - top, 0.0, seen.shape[0] - 1.001)
    i, j = int(row), int(column)
    s, t = row - i, column - j
    above = seen[i, j] * (1 - t) + seen[i, j + 1] * t
    below = seen[i + 1, j] * (1 - t) + seen[i + 1, j + 1] * t
    return above * (1 - s) + below * s


@compiled
def half_width(p: Any, lens: Any, seen: Any, half: Any, top: Any) -> Any:
    """Half the width of the rims, in units: that of a bar with the area and height of ``seen``
    across the outline; off the brows unless there is only a ``half`` rim, the upper one.
    """
    bins = np.zeros(15)
    counts = np.zeros(15)
    for row in range(seen.shape[0]):
        for column in range(seen.shape[1]):
            x, y = lens_place(p, column, top + row)
            if half == (y > lens[DROP] - 0.1 * lens[HEIGHT]):
                continue
            place = int(np.floor(beyond(lens, x, y) / 0.02 + 7.5))
            if 0 <= place < 15:
                bins[place] += seen[row, column]
                counts[place] += 1.0
    bins /= np.maximum(counts, 1.0)
    return clipped(0.01 * bins.sum() / max(bins.max(), 0.05), THINNEST, THICKEST)
