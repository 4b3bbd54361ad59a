"""`eyes`: the eye region of another photo of the same person, pasted in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels import warp
from distill.data.second.pixels.draws import between
from distill.data.second.pixels.face import place, plane_of, rows_between
from distill.data.second.pixels.filters import as_floats, clipped, luma, mix_in, smoothed, step

OTHER, OWN = range(2)
HALF_WIDTH, HALF_HEIGHT = 0.94, 0.31
"""Half axes of the pasted region, in units: both eyes, without the brows."""
FEATHER = 0.40
"""Share of the region over which it fades out."""
DROP = 0.04
"""How far the middle of the region lies below the eye line."""
LIGHT_BLUR = 0.20
"""Brightness that changes over more than this is the sample's, finer detail the donor's (sigma)."""
MAX_GAIN = 2.5
"""Largest brightness of a detail over that of its surroundings, and smallest as its inverse."""
OWN_HUE = 0.4
"""Share of a detail's own colour that is kept."""
DARK = 8.0
"""Grey levels added to both sides of a ratio, so that black does not decide it."""
MAX_TURN = 0.35
"""Heads turned further do not give or take eyes (see `Plane.turn`)."""
MAX_TURN_APART = 0.25
"""Largest difference in the turn of two heads whose eyes fit each other."""


@compiled
def eyes(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """Eyes of ``other``, placed by the eye points; else the image's own, jittered.

    A photo with the head turned another way does not count as another one. The region's colours
    are bent smoothly to those along its edge, so that no seam is seen; see `kinds`.
    """
    o = options[0]
    p = plane_of(points, image.shape[0])
    matrix = _jitter(points, image.shape[0], o, state)
    donor = np.empty_like(image)
    if has_other and _fit(p.turn, plane_of(others, image.shape[0]).turn):
        matrix = warp.similarity(others[:2].astype(np.float64), points[:2].astype(np.float64))
        warp.warped(other, matrix, donor)
        told[0] = OTHER
    else:
        warp.warped(image, matrix, donor)
        told[0] = OWN
    _pasted(image, donor, p, out)


@compiled
def _fit(turn: Any, other: Any) -> Any:
    """Whether eyes of a head turned by one amount pass on a head turned by another."""
    return max(abs(turn), abs(other)) <= MAX_TURN and abs(turn - other) <= MAX_TURN_APART


@compiled
def _jitter(points: Any, size: Any, o: Any, state: Any) -> Any:
    """A small turn, scale and shift about the point between the eyes; (2, 3)."""
    turn = np.deg2rad(between(state, -1.0, 1.0) * o.eye_degrees)
    scale = between(state, o.eye_scale[0], o.eye_scale[1])
    reach = o.eye_shift * size / 112
    dx, dy = between(state, -reach, reach), between(state, -reach, reach)
    linear = np.empty((2, 2))
    linear[0] = scale * np.cos(turn), -scale * np.sin(turn)
    linear[1] = scale * np.sin(turn), scale * np.cos(turn)
    cx, cy = 0.5 * (points[0, 0] + points[1, 0]), 0.5 * (points[0, 1] + points[1, 1])
    return warp.about(np.float64(cx), np.float64(cy), linear, dx, dy)


@compiled
def _pasted(image: Any, donor: Any, p: Any, out: Any) -> None:
    """The fine detail of ``donor`` on the light and hue of ``image``, within the eye region.

    The donor's own light may be another (sun from one side, blue shadows): only what stands out
    from its surroundings is taken, its brightness in full and its colour by `OWN_HUE`.
    """
    sigma = max(2.0, LIGHT_BLUR * p.unit)
    top, bottom = rows_between(p, DROP - HALF_HEIGHT - 0.5, DROP + HALF_HEIGHT + 0.5)
    if bottom - top < 2:
        return
    around = smoothed(as_floats(donor[top:bottom]), sigma)
    below = smoothed(as_floats(image[top:bottom]), sigma)
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = place(p, column, row)
            # Power 4: flatter than an ellipse, so that the outer corners of the eyes are inside.
            square_x, square_y = (x / HALF_WIDTH) ** 2, ((y - DROP) / HALF_HEIGHT) ** 2
            radius = np.sqrt(np.sqrt(square_x * square_x + square_y * square_y))
            if radius >= 1.0:
                continue
            seen, near = donor[row, column], around[row - top, column]
            bright = luma(seen[0], seen[1], seen[2]) + DARK
            gain = bright / (luma(near[0], near[1], near[2]) + DARK)
            held = clipped(gain, 1 / MAX_GAIN, MAX_GAIN)
            base = below[row - top, column]
            r = base[0] * held * ((seen[0] + DARK) / (near[0] + DARK) / gain) ** OWN_HUE
            g = base[1] * held * ((seen[1] + DARK) / (near[1] + DARK) / gain) ** OWN_HUE
            b = base[2] * held * ((seen[2] + DARK) / (near[2] + DARK) / gain) ** OWN_HUE
            mix_in(out, row, column, r, g, b, step(radius, 1.0, 1.0 - FEATHER))
