"""Frames taken off a face: their pixels and their reflections found and filled from around."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import grainy
from distill.data.second.pixels.face import place, rows_between
from distill.data.second.pixels.filters import luma, median, mix_in, order_of
from distill.data.second.pixels.lens import (
    BAND_BOTTOM,
    BAND_FADE,
    BAND_TOP,
    DROP,
    arm_distance,
    beyond,
    bridge_distance,
    lens_place,
)

RIM_REACH, DARK_REACH = 0.24, 0.15
"""Width of the strip along the fitted rim in which pixels may be frame, in units; the second where
the rim is as dark as brows and lashes, which a wide strip would take along."""
DARK_RIM = 0.5
"""A rim darker than this share of the skin is as dark as brows."""
CORE = 0.06
"""Width of the strip along the fitted lower rim that shows the rim's colour, in units."""
ARM_REACH = 0.20
EVIDENCE = 0.15
"""Evidence above which a pixel of the strip may count as frame: 1 for a thin line that differs from
what is round it by `SKIN_SHARE` of the skin's brightness."""
SKIN_SHARE = 0.22
RIM_SHARE = 0.40
"""How far from the skin's to the rim's colour a pixel must lie to count as frame."""
RELAXED = 12
"""Rounds of smoothing of what was filled."""
THIN = 0.10
"""Half the width of what counts as thin, in units."""
GLARE = 1.45
"""Light on a lens this many times as bright as the skin, and colourless, is a reflection."""


@compiled
def take_off(image: Any, p: Any, look: Any, lens: Any, key: Any, out: Any) -> None:
    """Fills frame and reflections; ``lens`` is where the finder saw them."""
    top, bottom = rows_between(p, BAND_TOP, BAND_BOTTOM)
    if bottom - top < 3:
        return
    dark, bright, hue = _thin(image, p, look, top, bottom)
    rim = _rim_colour(image, p, lens, dark, bright, hue, top)
    mask = np.zeros((p.size, p.size), np.uint8)
    _mark_rims(image, p, look, lens, rim, dark, bright, hue, top, mask)
    _mark_glare(image, p, look, lens, bright, top, mask)
    _fill(p, look, _grown(p, mask, top, bottom), top, bottom, key, out)


@compiled
def _thin(image: Any, p: Any, look: Any, top: Any, bottom: Any) -> Any:
    """Evidence of thin lines: darker, brighter, of another hue than what is round them; (h, S).

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
    return dark / unit, bright / unit, hue / 0.09


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
def _rim_colour(
    image: Any, p: Any, lens: Any, dark: Any, bright: Any, hue: Any, top: Any
) -> Any:  # fmt: skip
    """Median colour of the surest pixels of the lower rims."""
    colours, sure, count = np.empty((600, 3)), np.empty(600), 0
    for y in range(dark.shape[0]):
        for column in range(p.size):
            x, v = lens_place(p, column, top + y)
            if v > lens[DROP] and abs(beyond(lens, x, v)) < 0.5 * CORE and count < 600:
                colours[count] = image[top + y, column]
                sure[count] = max(dark[y, column], bright[y, column], hue[y, column])
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
def _mark_rims(
    image: Any, p: Any, look: Any, lens: Any, rim: Any, dark: Any, bright: Any, hue: Any,
    top: Any, mask: Any,
) -> None:  # fmt: skip
    """Pixels near the fitted outline that stand out and lie towards the rim's colour."""
    darker = luma(rim[0], rim[1], rim[2]) < DARK_RIM * look.light
    reach = DARK_REACH if darker else RIM_REACH
    wx, wy, wz = rim[0] - look.skin[0], rim[1] - look.skin[1], rim[2] - look.skin[2]
    square = wx * wx + wy * wy + wz * wz + 1e-3
    for y in range(dark.shape[0]):
        for column in range(p.size):
            x, v = lens_place(p, column, top + y)
            near = abs(beyond(lens, x, v)) < 0.5 * reach
            near = near or bridge_distance(lens, x, v) < 0.5 * RIM_REACH
            near = near or arm_distance(lens, x, v) < 0.5 * ARM_REACH
            if not near or max(dark[y, column], bright[y, column], hue[y, column]) < EVIDENCE:
                continue
            pixel = image[top + y, column]
            dx, dy, dz = pixel[0] - look.skin[0], pixel[1] - look.skin[1], pixel[2] - look.skin[2]
            share = (dx * wx + dy * wy + dz * wz) / square
            aside = (dx - share * wx) ** 2 + (dy - share * wy) ** 2 + (dz - share * wz) ** 2
            if share > RIM_SHARE and aside < 0.64 * square:
                mask[top + y, column] = 1


@compiled
def _mark_glare(
    image: Any, p: Any, look: Any, lens: Any, bright: Any, top: Any, mask: Any
) -> None:  # fmt: skip
    """Small colourless lights on the lenses; the eyes, which have such of their own, are left."""
    least = min(GLARE * look.light, 235.0)
    for y in range(bright.shape[0]):
        for column in range(p.size):
            x, v = lens_place(p, column, top + y)
            if np.hypot((abs(x) - 0.5) / 0.26, v / 0.13) < 1 or beyond(lens, x, v) > -0.02:
                continue
            pixel = image[top + y, column]
            low, high = min(pixel[0], pixel[1], pixel[2]), max(pixel[0], pixel[1], pixel[2])
            if low > least and high - low < 40 and bright[y, column] > EVIDENCE:
                mask[top + y, column] = 1


@compiled
def _grown(p: Any, mask: Any, top: Any, bottom: Any) -> Any:
    """The mask and its four neighbours, within the band."""
    grown, size = np.zeros_like(mask), p.size
    for row in range(top, bottom):
        for column in range(size):
            y = place(p, column, row)[1]
            if y < BAND_TOP + BAND_FADE or y > BAND_BOTTOM - BAND_FADE:
                continue
            hit = mask[row, column] or mask[max(row - 1, 0), column]
            hit = hit or mask[min(row + 1, size - 1), column] or mask[row, max(column - 1, 0)]
            grown[row, column] = 1 if hit or mask[row, min(column + 1, size - 1)] else 0
    return grown


@compiled
def _fill(p: Any, look: Any, mask: Any, top: Any, bottom: Any, key: Any, out: Any) -> None:
    """From the rim of the hole inwards, each pixel the weighted mean of the known ones near it.

    After Telea, "An image inpainting technique based on the fast marching method", J. Graphics
    Tools 9(1), 2004, with layers of neighbours for the marching front and without its gradient
    term; then the photo's own grain.
    """
    size = p.size
    reach = max(3, round(0.12 * p.unit))
    layer = mask.copy()
    left = 1
    while left:
        left = 0
        for row in range(top, bottom):
            for column in range(size):
                if layer[row, column] == 1 and _touches(layer, row, column):
                    layer[row, column] = 2
                    left += 1
        for row in range(top, bottom):
            for column in range(size):
                if layer[row, column] == 2:
                    _average(out, layer, row, column, reach)
        for row in range(top, bottom):
            for column in range(size):
                if layer[row, column] == 2:
                    layer[row, column] = 0
    _relax(mask, top, bottom, out)
    for row in range(top, bottom):
        for column in range(size):
            if mask[row, column]:
                noise = 0.4 * look.grain * grainy(key, column, row)
                pixel = out[row, column]
                mix_in(out, row, column, pixel[0] + noise, pixel[1] + noise, pixel[2] + noise, 1.0)


@compiled
def _relax(mask: Any, top: Any, bottom: Any, out: Any) -> None:
    """Smooths the filled pixels, so that no seam is left between a tinted lens and its shadow.

    Gauss-Seidel rounds on Laplace's equation.
    """
    values = out[top:bottom].astype(np.float32)
    height, width = values.shape[:2]
    for _ in range(RELAXED):
        for y in range(height):
            for x in range(width):
                if not mask[top + y, x]:
                    continue
                above, below = values[max(y - 1, 0), x], values[min(y + 1, height - 1), x]
                left, right = values[y, max(x - 1, 0)], values[y, min(x + 1, width - 1)]
                for c in range(3):
                    values[y, x, c] = 0.25 * (above[c] + below[c] + left[c] + right[c])
    for y in range(height):
        for x in range(width):
            if mask[top + y, x]:
                for c in range(3):
                    out[top + y, x, c] = np.uint8(values[y, x, c] + 0.5)


@compiled
def _touches(layer: Any, row: Any, column: Any) -> Any:
    """Whether a neighbour is known."""
    height, width = layer.shape
    known = layer[max(row - 1, 0), column] == 0 or layer[min(row + 1, height - 1), column] == 0
    return (
        known or layer[row, max(column - 1, 0)] == 0 or layer[row, min(column + 1, width - 1)] == 0
    )


@compiled
def _average(out: Any, layer: Any, row: Any, column: Any, reach: Any) -> None:
    """Mean of the known pixels near by, the nearest counting most."""
    r = g = b = total = 0.0
    for i in range(max(0, row - reach), min(layer.shape[0], row + reach + 1)):
        for j in range(max(0, column - reach), min(layer.shape[1], column + reach + 1)):
            if layer[i, j] != 0:
                continue
            square = (i - row) ** 2 + (j - column) ** 2
            weight = 1.0 / (square * square)
            r, g, b = (
                r + weight * out[i, j, 0],
                g + weight * out[i, j, 1],
                b + weight * out[i, j, 2],
            )
            total += weight
    if total > 0:
        mix_in(out, row, column, r / total, g / total, b / total, 1.0)
