"""Spectacle frames and sunglasses, drawn on a face."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import between, bits, choice, grainy, hills, uniform
from distill.data.second.pixels.face import rows_between
from distill.data.second.pixels.filters import clipped, mix_in, step
from distill.data.second.pixels.lens import (
    APART,
    BAND_BOTTOM,
    BAND_TOP,
    DROP,
    HEIGHT,
    SHAPES,
    WIDTH,
    arm_distance,
    band,
    beyond,
    bridge_distance,
    lens_place,
)

RIMS = np.array(
    [
        [22, 21, 23, 0.066],
        [74, 44, 26, 0.070],
        [58, 38, 30, 0.058],
        [30, 36, 62, 0.060],
        [112, 26, 32, 0.060],
        [62, 64, 70, 0.034],
        [140, 143, 148, 0.034],
        [164, 128, 70, 0.034],
    ]
)
"""RGB and thickness in units: black, tortoise, brown, navy, red, gunmetal, silver, gold."""
TORTOISE, FIRST_METAL = 1, 5
TINTS = np.array([[26, 26, 30], [46, 34, 24], [26, 38, 34], [30, 34, 58]])
"""Dark lenses: grey, brown, green, blue."""
COATINGS = np.array([[245, 248, 252], [196, 226, 214], [206, 206, 244]])
"""What lenses reflect: a window, or its rest in a green or violet coating."""
HALF_RIM = 0.12
"""Chance that the lower rims are missing."""


@compiled
def draw_frames(image: Any, p: Any, look: Any, dark: Any, state: Any, out: Any, told: Any) -> None:
    """Frames of a random shape and colour; lenses tinted a little, or dark.

    ``told`` gets the shape, the colour, and 1 for half rims at places 1 to 3.
    """
    shape, rim = choice(state, len(SHAPES)), choice(state, len(RIMS))
    lens, width = SHAPES[shape].copy(), RIMS[rim, 3] * between(state, 0.85, 1.2)
    size = between(state, 0.92, 1.10)
    lens[WIDTH] *= size
    lens[HEIGHT] *= size * between(state, 0.92, 1.08)
    lens[APART] = max(lens[APART], lens[WIDTH] + 0.09)
    lens[DROP] += between(state, -0.04, 0.05)
    half = uniform(state) < HALF_RIM and not dark
    told[1], told[2], told[3] = shape, rim, 1.0 if half else 0.0
    top, bottom = rows_between(p, BAND_TOP, BAND_BOTTOM)
    _glaze(p, lens, dark, state, top, bottom, out)
    _rims(p, look, lens, width, rim, half, bits(state), top, bottom, out)


@compiled
def _rim_distance(p: Any, lens: Any, x: Any, y: Any, half: Any) -> Any:
    """Distance from rims, bridge and arms; of a turned head, the far arm is hidden."""
    edge = 9.0
    if not (half and y > lens[DROP] + 0.02):
        edge = abs(beyond(lens, x, y))
    edge = min(edge, bridge_distance(lens, x, y))
    if x * p.turn < 0.25 * abs(x):
        edge = min(edge, arm_distance(lens, x, y))
    return edge


@compiled
def _covered(distance: Any, width: Any, unit: Any) -> Any:
    """Share of a pixel that a line of a width covers, from its distance."""
    return clipped((0.5 * width - distance) * unit + 0.5, 0.0, 1.0)


@compiled
def _rims(
    p: Any, look: Any, lens: Any, width: Any, rim: Any, half: Any, key: Any,
    top: Any, bottom: Any, out: Any,
) -> None:  # fmt: skip
    """Shadow and rims: lit from above and from the photo's own side, mottled where tortoise."""
    light = clipped(look.light / 150, 0.45, 1.2)
    gloss = 75.0 if rim >= FIRST_METAL else 36.0
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = lens_place(p, column, row)
            inside = band(y)
            if abs(x) > 1.3 or inside == 0:
                continue
            distance = _rim_distance(p, lens, x, y, half)
            above = _rim_distance(p, lens, x, y - 0.07, half)
            shade = 0.30 * step(above, 0.5 * width + 0.07, 0.0) * inside * step(abs(x), 1.2, 1.0)
            share = _covered(distance, width, p.unit) * inside * step(abs(x), 1.18, 1.02)
            pixel = out[row, column]
            mix_in(out, row, column, pixel[0] * 0.3, pixel[1] * 0.3, pixel[2] * 0.3, shade)
            if share == 0:
                continue
            # The upper half of a round rim looks to the sky.
            up = clipped(0.5 + (distance - above) / (2 * width), 0.0, 1.0)
            lit = light * (1 + 0.7 * clipped(look.lean * x, -0.5, 0.5)) * (0.85 + 0.25 * up)
            shine = gloss * up * up * light + 3 * grainy(key, column, row)
            r, g, b = RIMS[rim, 0] * lit, RIMS[rim, 1] * lit, RIMS[rim, 2] * lit
            if rim == TORTOISE:
                spot = 0.7 * step(hills(key, x * 10, y * 10), 0.2, 0.9)
                r, g, b = r + (150 - r) * spot, g + (96 - g) * spot, b + (46 - b) * spot
            mix_in(out, row, column, r + shine, g + shine, b + shine, share)


@compiled
def _glaze(p: Any, lens: Any, dark: Any, state: Any, top: Any, bottom: Any, out: Any) -> None:
    """Lenses: a faint tint or a dark one, and the slanted reflection of a window."""
    tint, coating = TINTS[choice(state, len(TINTS))], COATINGS[choice(state, len(COATINGS))]
    base = between(state, 0.80, 0.94) if dark else between(state, 0.02, 0.08)
    at, strength = between(state, -0.2, 0.2), between(state, 0.06, 0.22)
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = lens_place(p, column, row)
            inside = band(y)
            if abs(x) > 1.2 or inside == 0:
                continue
            share = clipped(0.5 - beyond(lens, x, y) * p.unit, 0.0, 1.0) * inside
            if share == 0:
                continue
            if dark:
                density = clipped(base - 0.22 * clipped(y, -0.3, 0.5), 0.0, 0.97) * share
                mix_in(out, row, column, tint[0], tint[1], tint[2], density)
            else:
                mix_in(out, row, column, 214.0, 222.0, 226.0, base * share)
            across = x + 0.7 * y - at
            streak = np.exp(-(((across + 0.48) / 0.10) ** 4))
            streak += np.exp(-(((across - 0.56) / 0.10) ** 4))
            gloss = strength * step(y, 0.35, -0.25) * streak * share
            mix_in(out, row, column, coating[0], coating[1], coating[2], gloss)
