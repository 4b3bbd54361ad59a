"""Which pixels of a face look like the rims of spectacles, and where these run."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.filters import clipped, luma, median, order_of
from distill.data.second.pixels.lens import CANDIDATES, DROP, beyond, lens_place
from distill.data.second.pixels.outline import fitted

CORE = 0.06
"""Width of the strip along the fitted lower rim that shows the rim's colour, in units."""
EVIDENCE = 0.15
"""Evidence above which a pixel may count as frame: 1 for a thin line that differs from what is
round it by `SKIN_SHARE` of the skin's brightness."""
SKIN_SHARE = 0.22
HALF_LESS, DARK_LESS = 0.6, 0.05
"""How much clearer upper rims alone must be than whole ones to be all there is, for brows are drawn
as they are; and dark rims than others, for so are lashes."""
THIN = 0.10
"""Half the width of what counts as thin, in units."""


@compiled
def thin_lines(image: Any, p: Any, look: Any, top: Any, bottom: Any) -> Any:
    """Evidence of thin lines: darker, brighter, of another hue than what is round them; (3, h, S).

    Closing and opening by a square less the image (black and top hat), and the distance of the
    share of red and of blue from their means in twice that square.
    """
    height, size = bottom - top, p.size
    reach = max(2, round(THIN * p.unit))
    light = np.empty((height, size), np.float32)
    shares = np.empty((height, size, 2), np.float32)
    for y in range(height):
        for x in range(size):
            pixel = image[top + y, x]
            r, g, b = np.float64(pixel[0]), np.float64(pixel[1]), np.float64(pixel[2])
            light[y, x] = luma(r, g, b)
            shares[y, x, 0], shares[y, x, 1] = r / (r + g + b + 30), b / (r + g + b + 30)
    unit = SKIN_SHARE * max(look.light, 30.0)
    dark = _extreme(_extreme(light, reach, 1), reach, -1) - light
    bright = light - _extreme(_extreme(light, reach, -1), reach, 1)
    hue = np.zeros((height, size), np.float32)
    for y in range(height):
        for x in range(size):
            red = blue = count = 0.0
            for i in range(max(0, y - 2 * reach), min(height, y + 2 * reach + 1), 2):
                for j in range(max(0, x - 2 * reach), min(size, x + 2 * reach + 1), 2):
                    red, blue = red + shares[i, j, 0], blue + shares[i, j, 1]
                    count += 1.0
            hue[y, x] = np.hypot(shares[y, x, 0] - red / count, shares[y, x, 1] - blue / count)
    found = np.empty((3, height, size), np.float32)
    found[0], found[1], found[2] = dark / unit, bright / unit, hue / 0.09
    return np.minimum(found, 1.0).astype(np.float32)


@compiled
def _extreme(values: Any, reach: Any, sign: Any) -> Any:
    """Largest (sign 1) or smallest (-1) value in a square about each pixel."""
    height, width = values.shape
    rows, out = np.empty_like(values), np.empty_like(values)
    for y in range(height):
        for x in range(width):
            best = values[y, x]
            for j in range(max(0, x - reach), min(width, x + reach + 1)):
                best = max(best, values[y, j]) if sign > 0 else min(best, values[y, j])
            rows[y, x] = best
    for y in range(height):
        for x in range(width):
            best = rows[y, x]
            for i in range(max(0, y - reach), min(height, y + reach + 1)):
                best = max(best, rows[i, x]) if sign > 0 else min(best, rows[i, x])
            out[y, x] = best
    return out


@compiled
def rims_of(image: Any, p: Any, look: Any, seen: Any, top: Any) -> Any:
    """Outline, colour and likeness of the rims: dark, bright or of another hue, whichever shows
    the clearest pair of lenses once their colour is known.
    """
    best = -9.0
    lens, rim, like, half = CANDIDATES[0], np.zeros(3), seen[0], False
    for way in range(6):
        upper, sign = way >= 3, seen[way % 3]
        tried = fitted(p, sign, upper, top)[0]
        colour = _rim_colour(image, p, tried, sign, upper, top)
        likeness = _likeness(image, look, colour, sign, top)
        tried, score = fitted(p, likeness, upper, top)
        score -= HALF_LESS * upper + DARK_LESS * (way % 3 == 0)
        if score > best:
            best, lens, rim, like, half = score, tried, colour, likeness, upper
    return lens, rim, like, half


@compiled
def _rim_colour(image: Any, p: Any, lens: Any, seen: Any, half: Any, top: Any) -> Any:
    """Median colour of the surest pixels of the lower rims; of the upper ones of half rims."""
    colours, sure, count = np.empty((600, 3)), np.empty(600), 0
    for y in range(seen.shape[0]):
        for column in range(p.size):
            x, v = lens_place(p, column, top + y)
            if (v > lens[DROP]) != half and abs(beyond(lens, x, v)) < 0.5 * CORE and count < 600:
                colours[count] = image[top + y, column]
                sure[count] = seen[y, column]
                count += 1
    rim = np.zeros(3)
    if count < 3:
        return rim
    order, first = order_of(sure, count), int(0.6 * count)
    best = np.empty((count - first, 3))
    for i in range(first, count):
        best[i - first] = colours[order[i]]
    for c in range(3):
        rim[c] = median(best[:, c], count - first)
    return rim


@compiled
def _likeness(image: Any, look: Any, rim: Any, seen: Any, top: Any) -> Any:
    """How much each pixel looks like rim, 0 to 1: thin, and of a colour from the skin's to its."""
    like = np.zeros_like(seen)
    wx, wy, wz = rim[0] - look.skin[0], rim[1] - look.skin[1], rim[2] - look.skin[2]
    square = wx * wx + wy * wy + wz * wz + 1e-3
    for y in range(seen.shape[0]):
        for x in range(seen.shape[1]):
            if seen[y, x] < EVIDENCE:
                continue
            pixel = image[top + y, x]
            dx, dy, dz = pixel[0] - look.skin[0], pixel[1] - look.skin[1], pixel[2] - look.skin[2]
            share = (dx * wx + dy * wy + dz * wz) / square
            aside = (dx - share * wx) ** 2 + (dy - share * wy) ** 2 + (dz - share * wz) ** 2
            if aside < 0.64 * square:
                like[y, x] = clipped(share, 0.0, 1.0)
    return like
