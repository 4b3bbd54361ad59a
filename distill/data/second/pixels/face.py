"""Where things are on a face, and what the photo says of its skin, brows, outline and hair.

Coordinates that move with the face: the origin lies between the eyes, x points to the right eye
(as seen), y down, one unit is the distance between the eyes of a face seen from the front.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.filters import clipped, luma, median, order_of
from distill.data.second.pixels.warp import sample

HALF_HEAD = 1.08
"""Half the width of a face at the cheekbones, in units, seen from the front."""
MOUTH_Y = 1.157
"""How far the mouth lies below the eye line on the template, in units."""
HAIR_STEPS = 5
"""Colours from dark to light that stand for the hair of a photo."""


class Plane(NamedTuple):
    """The coordinates of a face.

    Attributes:
        size: side of the image, in pixels.
        ox, oy: the origin, in pixels.
        ux, uy: one unit along x, in pixels; along y it is (-uy, ux).
        unit: length of a unit, in pixels.
        turn: place of the nose's tip in x: 0 for a frontal face, about +-0.5 for a profile.
        apart: seen distance of the eyes, in units: 1 unless the head is turned.
        mouth, mouth_y: the middle of the mouth; (0, `MOUTH_Y`) on the template.
    """

    size: int
    ox: float
    oy: float
    ux: float
    uy: float
    unit: float
    turn: float
    apart: float
    mouth: float
    mouth_y: float


class Look(NamedTuple):
    """What a photo says.

    Attributes:
        skin: median colour of the cheeks and the bridge of the nose, (3,).
        light: its brightness.
        grain: deviation of the finest detail on the cheeks, in grey levels.
        lean: how much brighter the right cheek is than the left one, as a share of both, -1 .. 1.
        brow_left, brow_right: upper edge of the brows in y; NaN where none is seen.
        wide_left, wide_right: half widths of the face at the cheeks, in units.
        hair: `HAIR_STEPS` colours of the hair from dark to light, (HAIR_STEPS, 3).
        hair_share: share of the place for hair that shows some; 0 where ``hair`` means nothing.
    """

    skin: np.ndarray[Any, Any]
    light: float
    grain: float
    lean: float
    brow_left: float
    brow_right: float
    wide_left: float
    wide_right: float
    hair: np.ndarray[Any, Any]
    hair_share: float


@compiled
def plane_of(points: Any, size: Any) -> Any:
    """The `Plane` of five points, whatever they are; units stay between 0.15 and 0.6 of a side.

    A turned head, whose eyes are close together, is measured by the distance from eyes to mouth
    (on the template 40.7 pixels, where the eyes are 35.2 apart); of a profile, the x axis is at
    right angles to that line.
    """
    ox, oy = 0.5 * (points[0, 0] + points[1, 0]), 0.5 * (points[0, 1] + points[1, 1])
    ax, ay = np.float64(points[1, 0] - points[0, 0]), np.float64(points[1, 1] - points[0, 1])
    mx, my = 0.5 * (points[3, 0] + points[4, 0]), 0.5 * (points[3, 1] + points[4, 1])
    dx, dy = np.float64(mx - ox), np.float64(my - oy)
    across, down = np.hypot(ax, ay), np.hypot(dx, dy)
    unit = clipped(max(across, 0.8 * down * 35.2 / 40.7), 0.15 * size, 0.6 * size)
    if across < 0.3 * down:
        ax, ay = dy, -dx
    length = np.hypot(ax, ay)
    cx, cy = (ax / length, ay / length) if length > 1e-6 else (1.0, 0.0)
    nose = ((points[2, 0] - ox) * cx + (points[2, 1] - oy) * cy) / unit
    mouth = (dx * cx + dy * cy) / unit
    turn = clipped(nose, -1.0, 1.0)
    return Plane(
        int(size),
        np.float64(ox),
        np.float64(oy),
        cx * unit,
        cy * unit,
        unit,
        np.float64(turn),
        across / unit,
        np.float64(clipped(mouth, -0.8, 0.8)),
        np.float64(clipped((dy * cx - dx * cy) / unit, 0.8, 1.5)),
    )


@compiled
def place(p: Any, column: Any, row: Any) -> Any:
    """Face coordinates x, y of a pixel."""
    dx, dy = column - p.ox, row - p.oy
    square = p.unit * p.unit
    return (dx * p.ux + dy * p.uy) / square, (dy * p.ux - dx * p.uy) / square


@compiled
def pixel_of(p: Any, x: Any, y: Any) -> Any:
    """Column and row of a place, in pixels."""
    return p.ox + x * p.ux - y * p.uy, p.oy + x * p.uy + y * p.ux


@compiled
def rows_between(p: Any, top: Any, bottom: Any) -> Any:
    """First and one past the last image row that may hold a place with ``top`` <= y <= ``bottom``.

    A turned face plane spans more rows; x within 3 units counts.
    """
    low, high = 1e9, -1e9
    for x in (-3.0, 3.0):
        for y in (top, bottom):
            row = pixel_of(p, x, y)[1]
            low, high = min(low, row), max(high, row)
    return int(clipped(np.floor(low), 0, p.size)), int(clipped(np.ceil(high) + 1, 0, p.size))


@compiled
def line_at(look: Any, x: Any, gap: Any) -> Any:
    """Lowest y of what covers a forehead at x: ``gap`` above the eyes, and above raised brows."""
    left, right = -gap, -gap
    if look.brow_left < 0:
        left = clipped(look.brow_left - 0.04, -0.80, -gap)
    if look.brow_right < 0:
        right = clipped(look.brow_right - 0.04, -0.80, -gap)
    share = clipped((x + 0.4) / 0.8, 0.0, 1.0)
    return left + (right - left) * share


@compiled
def head_x(p: Any, look: Any, x: Any) -> Any:
    """X stretched so that the seen outline of the face lies at +-`HALF_HEAD`."""
    return x * HALF_HEAD / (look.wide_left if x < 0 else look.wide_right)


@compiled
def _light_at(image: Any, p: Any, x: Any, y: Any, pixel: Any) -> Any:
    """Brightness at a place; the colour stays in ``pixel``."""
    column, row = pixel_of(p, x, y)
    sample(image, column, row, pixel)
    return luma(pixel[0], pixel[1], pixel[2])


@compiled
def look_at(image: Any, p: Any) -> Any:
    """Reads a `Look` off a photo."""
    skin, grain, lean = _skin(image, p)
    light = luma(skin[0], skin[1], skin[2])
    left, right = _brow(image, p, -1.0), _brow(image, p, 1.0)
    wide_left, wide_right = _half_width(image, p, -1.0), _half_width(image, p, 1.0)
    hair, share = _hair(image, p, light)
    return Look(skin, light, grain, lean, left, right, wide_left, wide_right, hair, share)


@compiled
def _skin(image: Any, p: Any) -> Any:
    """Median colour of cheeks and bridge, deviation of fine detail, and which cheek is brighter."""
    colours, count = np.empty((160, 3), np.float64), 0
    sides, detail = np.zeros(2), np.zeros(144)
    pixel = np.empty(3, np.float64)
    for i in range(144):
        side = 1 if i % 2 else -1
        x, y = side * (0.27 + 0.36 * ((i // 2) % 9) / 8), 0.35 + 0.3 * (i // 18) / 7
        here = _light_at(image, p, x, y, pixel)
        colours[count] = pixel
        count += 1
        sides[i % 2] += here
        step = 1.5 / p.unit
        around = _light_at(image, p, x - step, y, pixel) + _light_at(image, p, x + step, y, pixel)
        around += _light_at(image, p, x, y - step, pixel) + _light_at(image, p, x, y + step, pixel)
        detail[i] = abs(here - around / 4)
    for i in range(16):
        _light_at(image, p, 0.12 * ((i % 4) / 1.5 - 1), 0.12 + 0.26 * (i // 4) / 3, pixel)
        colours[count] = pixel
        count += 1
    skin = np.empty(3, np.float64)
    for c in range(3):
        skin[c] = median(colours[:, c], count)
    grain = min(1.3 * median(detail, 144), 12.0)
    return skin, grain, (sides[1] - sides[0]) / (sides[0] + sides[1] + 1.0)


@compiled
def _brow(image: Any, p: Any, side: Any) -> Any:
    """Upper edge of a brow: above its darkest row, where the skin of the forehead begins again."""
    edges, count = np.empty(7), 0
    profile = np.empty(24)
    pixel = np.empty(3, np.float64)
    for i in range(7):
        x = side * (0.28 + 0.08 * i) * p.apart
        for k in range(24):
            y = -0.17 - 0.03 * k
            profile[k] = 0.0
            for j in range(-1, 2):
                profile[k] += _light_at(image, p, x + 0.03 * j, y, pixel) / 3
        order = order_of(profile, 24)
        bright = profile[order[18]]
        dark = order_of(profile, 15)[0]
        if profile[dark] > 0.86 * bright:
            continue
        level = profile[dark] + 0.6 * (bright - profile[dark])
        above = dark
        while above < 23 and profile[above] < level:
            above += 1
        if above < 23:
            edges[count] = -0.17 - 0.03 * above
            count += 1
    return median(edges, count) if count >= 3 else np.nan


@compiled
def _half_width(image: Any, p: Any, side: Any) -> Any:
    """Where the skin of a cheek ends, in units; near what the turn of the head lets expect."""
    # A head turned to one side shows less of that side.
    away = max(0.0, abs(p.turn) - 0.12)
    expected = HALF_HEAD * (1 + 0.4 * away if side * p.turn < 0 else max(0.35, 1 - 1.3 * away))
    widths, count = np.empty(6), 0
    pixel, start = np.empty(3, np.float64), np.empty(3, np.float64)
    for i in range(6):
        y = 0.15 + 0.1 * i
        _light_at(image, p, side * 0.62 * expected / HALF_HEAD, y, start)
        off = 0
        for k in range(30):
            x = 0.70 * expected + 0.02 * k * expected
            _light_at(image, p, side * x, y, pixel)
            apart = abs(pixel[0] - start[0]) + abs(pixel[1] - start[1]) + abs(pixel[2] - start[2])
            off = off + 1 if apart > 60 + 0.15 * (start[0] + start[1] + start[2]) else 0
            if off == 3:
                widths[count] = x - 0.04 * expected
                count += 1
                break
    if count < 3:
        return expected
    return clipped(median(widths, count), 0.88 * expected, 1.14 * expected)


@compiled
def _hair(image: Any, p: Any, light: Any) -> Any:
    """Colours of what is darker than skin at the top of the head, and how much of it there is."""
    found, brightness, count, seen = np.empty((360, 3)), np.empty(360), 0, 0
    pixel = np.empty(3, np.float64)
    for i in range(360):
        x, y = -0.8 + 1.6 * (i % 24) / 23, -1.55 + 0.45 * (i // 24) / 14
        column, row = pixel_of(p, x, y)
        if column < 0 or row < 0 or column > p.size - 1 or row > p.size - 1:
            continue
        seen += 1
        here = _light_at(image, p, x, y, pixel)
        # Black bars at the edge of a photo are not hair.
        if here < 0.72 * light and max(pixel[0], pixel[1], pixel[2]) > 8:
            found[count], brightness[count] = pixel, here
            count += 1
    hair = np.zeros((HAIR_STEPS, 3))
    if count <= max(20, 0.08 * seen):
        return hair, 0.0
    order = order_of(brightness, count)
    for k in range(HAIR_STEPS):
        # The mean of a few neighbours in brightness, so that one odd pixel is no hair colour.
        middle = int((0.05 + 0.20 * k) * (count - 1))
        low, high = max(0, middle - 4), min(count, middle + 5)
        for j in range(low, high):
            hair[k] += found[order[j]] / (high - low)
    return hair, count / seen
