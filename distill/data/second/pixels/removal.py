"""Frames taken off a face: their pixels, reflections and shadows found, and filled or lifted."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.face import place, rows_between
from distill.data.second.pixels.filters import clipped, luma, median, mix_in
from distill.data.second.pixels.inpaint import fill
from distill.data.second.pixels.lens import (
    BAND_BOTTOM,
    BAND_FADE,
    BAND_TOP,
    DROP,
    HEIGHT,
    arm_distance,
    beyond,
    bridge_distance,
    lens_place,
)
from distill.data.second.pixels.outline import half_width
from distill.data.second.pixels.rims import EVIDENCE, rims_of, thin_lines

WIDE = 0.22
"""Width of the strips along the bridge and the arms in which pixels may be frame, in units."""
EYE_WIDTH, EYE_HEIGHT = 0.22, 0.11
"""Half axes of what is taken for an eye and not filled, in units."""
DARK_RIM = 0.5
"""A rim darker than this share of the skin is as dark as brows."""
RIM_SHARE, JOINED_SHARE = 0.40, 0.55
"""How far from the skin's to the rim's colour a pixel must lie to count as frame, on the outline
and where it only touches what does."""
JOINED = 30
"""Rounds in which what touches the frame is added."""
MOST_JOINED = 0.7
"""What may be added, as a share of what is there."""
SHADOW, DARKEST, FAINTEST = 0.16, 0.6, 0.9
"""How far below a frame its shadow may reach, in units; how dark it may be, and how faint: a cheek
has as much of its own."""
LEAST_SHADED = 12
"""Columns below the lower rims that must be seen for a shadow to be told."""
GLARE = 1.45
"""Light on a lens this many times as bright as the skin, and colourless, is a reflection."""


@compiled
def take_off(image: Any, p: Any, look: Any, key: Any, out: Any) -> None:
    """Fills frame and reflections."""
    top, bottom = rows_between(p, BAND_TOP, BAND_BOTTOM)
    if bottom - top < 3:
        return
    seen = thin_lines(image, p, look, top, bottom)
    lens, rim, like, half = rims_of(image, p, look, seen, top)
    mask = np.zeros((p.size, p.size), np.uint8)
    dark = luma(rim[0], rim[1], rim[2]) < DARK_RIM * look.light
    width = half_width(p, lens, like, half, top)
    _mark_rims(p, lens, width, half, dark, like, top, mask)
    if not dark:
        mask = _with_joined(like, top, mask)
    _mark_glare(image, p, look, lens, seen[1], top, mask)
    mask = _grown(p, mask, top, bottom)
    if not half:
        _lift_shadow(p, lens, mask, top, bottom, out)
    fill(p, look, mask, top, bottom, key, out)


@compiled
def _mark_rims(
    p: Any, lens: Any, width: Any, half: Any, dark: Any, like: Any, top: Any, mask: Any
) -> None:
    """Pixels on the fitted outline, the bridge and the arms that look like rim; eyes are left.

    Bridges and arms are looked for in wider strips, unless the rim is as ``dark`` as hair.
    """
    aside = width if dark else max(width, 0.5 * WIDE)
    for y in range(like.shape[0]):
        for column in range(p.size):
            x, v = lens_place(p, column, top + y)
            near = abs(beyond(lens, x, v)) < width and not (half and v > lens[DROP] + 0.05)
            near = near or bridge_distance(lens, x, v) < aside
            near = near or arm_distance(lens, x, v) < aside
            eye = np.hypot((abs(x) - 0.5) / EYE_WIDTH, v / EYE_HEIGHT) < 1
            if near and not eye and like[y, column] > RIM_SHARE:
                mask[top + y, column] = 1


@compiled
def _with_joined(like: Any, top: Any, mask: Any) -> Any:
    """The mask with what looks much like rim and touches it: arms and corners of any form.

    Only for rims that are not as dark as hair and brows; and not where that is more than a frame
    has of them, for then it is something else.
    """
    height, width = like.shape
    joined, added = mask.copy(), 0
    for _ in range(JOINED):
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                row = top + y
                if joined[row, x] or like[y, x] < JOINED_SHARE:
                    continue
                beside = joined[row, x - 1] or joined[row, x + 1]
                if beside or joined[row - 1, x] or joined[row + 1, x]:
                    joined[row, x] = 1
                    added += 1
    return joined if added < mask.sum() * MOST_JOINED else mask


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
def _lift_shadow(p: Any, lens: Any, mask: Any, top: Any, bottom: Any, out: Any) -> None:
    """Brightens what lies in the shadow of the frame, below its pixels.

    How dark the shadow is, row by row, is the median below the lower rims of the brightness as a
    share of that of the skin just beyond; where there is no shadow, it is 1 and nothing changes.
    """
    reach, size = max(3, round(SHADOW * p.unit)), p.size
    shares, count = np.ones((reach, 2 * size)), 0
    for column in range(size):
        for row in range(top, min(bottom, size - reach - 2)):
            x, v = lens_place(p, column, row)
            if not mask[row, column] or v < lens[DROP] + 0.4 * lens[HEIGHT] or abs(x) > 1:
                continue
            if count == 2 * size or mask[row + 1 : row + reach + 2, column].any():
                continue
            beyond_it = _light(out, row + reach + 1, column)
            for k in range(reach):
                shares[k, count] = _light(out, row + 1 + k, column) / max(beyond_it, 10.0)
            count += 1
    if count < LEAST_SHADED:
        return
    gain = np.ones(reach)
    for k in range(reach):
        gain[k] = clipped(median(shares[k], count), DARKEST, 1.0)
    if gain.min() > FAINTEST:
        return
    for column in range(size):
        depth = reach
        for row in range(top, bottom):
            depth = 0 if mask[row, column] else depth + 1
            inside = place(p, column, row)[1] < BAND_BOTTOM - BAND_FADE
            if 0 < depth <= reach and inside:
                pixel, lift = out[row, column], 1 / gain[depth - 1]
                mix_in(out, row, column, pixel[0] * lift, pixel[1] * lift, pixel[2] * lift, 1.0)


@compiled
def _light(image: Any, row: Any, column: Any) -> Any:
    """Brightness of a pixel."""
    pixel = image[row, column]
    return luma(np.float64(pixel[0]), np.float64(pixel[1]), np.float64(pixel[2]))
