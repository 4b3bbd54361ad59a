"""`mask`: a medical mask over nose, mouth and chin, with its folds, edge and ear loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import (
    between,
    bits,
    choice,
    choice_of,
    grainy,
    hills,
    uniform,
)
from distill.data.second.pixels.face import MOUTH_Y, look_at, place, plane_of, rows_between
from distill.data.second.pixels.filters import clipped, mix_in, step
from distill.data.second.pixels.lens import line_distance

SURGICAL, RESPIRATOR, CLOTH = range(3)
COLOURS = np.array(
    [
        [[150, 192, 220], [212, 217, 222], [168, 208, 194], [52, 54, 60], [232, 190, 200]],
        [[222, 222, 220], [214, 215, 214], [202, 203, 208], [44, 46, 50], [196, 206, 218]],
        [[46, 48, 54], [122, 40, 46], [60, 78, 110], [176, 160, 136], [88, 104, 82]],
    ],
    np.float64,
)
"""Blue, white, green, black, pink; for respirators nearly white; for cloth darker; (3, 5, RGB)."""
TOP, BOTTOM = 0.22, 2.2
"""Rows that a mask and its loops may touch, in units below the eye line."""
WORN_LOW = 0.36
"""How much lower a mask begins that is worn below the nose."""


@compiled
def mask(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """A surgical mask, a respirator or a cloth mask; see `kinds`."""
    o = options[0]
    p = plane_of(points, image.shape[0])
    look = look_at(image, p)
    style, colour = choice_of(state, o.mask_styles), choice(state, 5)
    low = uniform(state) < o.mask_low
    told[0], told[1], told[2] = style, colour, 1.0 if low else 0.0
    lift = between(state, -0.04, 0.04) + (WORN_LOW if low else 0.0)
    pattern, key = choice(state, 4), bits(state)
    light = clipped((0.6 * look.light + 50) / 130, 0.5, 1.12)
    top, bottom = rows_between(p, TOP, BOTTOM)
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = place(p, column, row)
            if y < TOP or y > BOTTOM:
                continue
            across, y = _on_face(p, look, x, y)
            edge = _inside(style, across, y, lift)
            share = clipped(0.5 + edge * p.unit, 0.0, 1.0)
            _shadow(out, row, column, edge)
            loop = _loops(style, across, y, lift)
            thin = clipped((0.016 - loop) * p.unit + 0.5, 0.0, 1.0) * 0.8
            if thin > 0 and share < 1:
                mix_in(out, row, column, 214 * light, 214 * light, 210 * light, thin)
            if share > 0:
                shade = _shade(style, pattern, across, y, lift, edge, key)
                shade *= light * (1 + 0.7 * clipped(look.lean * across, -0.4, 0.4))
                noise = 0.6 * look.grain * grainy(key, column, row)
                r, g, b = COLOURS[style, colour]
                mix_in(
                    out, row, column, r * shade + noise, g * shade + noise, b * shade + noise, share
                )


@compiled
def _on_face(p: Any, look: Any, x: Any, y: Any) -> Any:
    """X from the line through nose and mouth (0) to the outlines (-1, 1), and y with the mouth at
    its place on the template.
    """
    scale = p.mouth_y / MOUTH_Y
    y = y / scale if y < p.mouth_y else MOUTH_Y + (y - p.mouth_y) / max(scale, 0.9)
    down = clipped(y / 0.57, 0.0, 1.0)
    below = clipped((y - 0.57) / (MOUTH_Y - 0.57), 0.0, 1.0)
    middle = 0.75 * (p.turn * down * (1 - below) + p.mouth * below)
    if x < middle:
        return (x - middle) / max(0.3, look.wide_left + middle), y
    return (x - middle) / max(0.3, look.wide_right - middle), y


@compiled
def _inside(style: Any, x: Any, y: Any, lift: Any) -> Any:
    """How deep a place lies inside the mask, in units; below 0 outside."""
    a = abs(x)
    if style == SURGICAL:
        upper, lower, side = 0.36 + 0.26 * a**1.7, 1.80 - 0.42 * a**2.2, 0.93
    elif style == RESPIRATOR:
        upper, lower, side = 0.30 + 0.46 * a**1.3, 1.86 - 0.62 * a**1.9, 0.90
    else:
        upper, lower, side = 0.33 + 0.36 * a**1.6, 1.84 - 0.50 * a**2.0, 0.95
    # Jaws are narrower than cheeks.
    side -= 0.22 * clipped((y - 0.9) / 0.9, 0.0, 1.0) ** 1.5
    return min(y - upper - lift, lower - y, side - a)


@compiled
def _loops(style: Any, x: Any, y: Any, lift: Any) -> Any:
    """Distance from the loops, which run from the corners of the mask to the ears."""
    a = abs(x)
    upper = line_distance(a, y, 0.86, 0.68 + lift, 1.10, 0.30)
    lower = line_distance(a, y, 0.84, 1.26, 1.10, 0.62)
    return min(upper, lower)


@compiled
def _shadow(out: Any, row: Any, column: Any, edge: Any) -> None:
    """Skin just outside the edge is a little darker."""
    if -0.10 < edge < 0:
        pixel = out[row, column]
        share = 0.22 * step(edge, -0.10, 0.0)
        mix_in(out, row, column, pixel[0] * 0.35, pixel[1] * 0.3, pixel[2] * 0.3, share)


@compiled
def _shade(
    style: Any, pattern: Any, x: Any, y: Any, lift: Any, edge: Any, key: Any
) -> Any:  # fmt: skip
    """Brightness of the cloth: round from ear to ear and over the nose, folded, hemmed, woven."""
    a = min(abs(x), 1.0)
    round_ = 0.52 + 0.50 * np.sqrt(1 - 0.80 * a * a)
    nose = 0.10 * np.exp(-((x / 0.22) ** 2) - (((y - 0.62) / 0.28) ** 2))
    under = -0.10 * step(y, 1.0, 1.75)
    wrinkle = 0.025 * hills(key, 3 * x, 4 * y + 0.6 * a)
    shade = round_ + nose + under + wrinkle
    hem = np.exp(-(((edge - 0.07) / 0.018) ** 2))
    if style == SURGICAL:
        for k in range(3):
            fold = y - (0.80 + 0.20 * k + 0.5 * lift) - (0.10 - 0.10 * k) * a * a
            shade -= 0.16 * np.exp(-((fold / 0.022) ** 2))
            shade += 0.07 * np.exp(-(((fold - 0.045) / 0.03) ** 2))
        return shade - 0.05 * hem
    if style == RESPIRATOR:
        shade -= 0.20 * np.exp(-((x / 0.020) ** 2)) + 0.05 * hem
        return shade + (0.06 if x > 0 else -0.03) * (1 - a)
    if pattern == 1:
        shade *= 1 + 0.22 * clipped(3 * np.cos(34 * x), -1.0, 1.0)
    elif pattern == 2:
        shade *= 1 + 0.22 * clipped(3 * np.cos(30 * y), -1.0, 1.0)
    elif pattern == 3:
        shade *= 1 + 0.35 * step(np.cos(26 * x) * np.cos(26 * y), 0.35, 0.75)
    return shade * (1 + 0.02 * grainy(key, x * 97, y * 97)) - 0.10 * hem
