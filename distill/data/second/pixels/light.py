"""`light`: a lamp from one side, gamma, exposure and the colour of the light."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.blur import _LINEAR, _VALUES
from distill.data.second.pixels.draws import between, choice_of, uniform
from distill.data.second.pixels.face import HALF_HEAD, place, plane_of

LAMP, GAMMA_CURVE, TEMPERATURE, EXPOSURE = range(4)
DAYLIGHT = 6500.0
"""Colour temperature that changes nothing, in kelvin."""


@compiled
def light(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """One style of a random strength; see `kinds`."""
    o = options[0]
    style = choice_of(state, o.light_styles)
    share, degrees = uniform(state), between(state, 0.0, 360.0)
    told[0] = style
    if style == LAMP:
        told[1] = o.lamp_strength[0] + (o.lamp_strength[1] - o.lamp_strength[0]) * share
        told[2] = degrees
        _lamp(image, plane_of(points, image.shape[0]), told[1], np.deg2rad(degrees), out)
        return
    gain = np.ones(3)
    power = 1.0
    if style == GAMMA_CURVE:
        power = _log_within(o.gamma, share)
        told[1] = power
    elif style == TEMPERATURE:
        told[1] = 1e6 / (1e6 / o.kelvin[0] + (1e6 / o.kelvin[1] - 1e6 / o.kelvin[0]) * share)
        now, white = blackbody(told[1]), blackbody(DAYLIGHT)
        gain = now / white
        gain /= 0.299 * gain[0] + 0.587 * gain[1] + 0.114 * gain[2]
    else:
        told[1] = o.exposure_stops[0] + (o.exposure_stops[1] - o.exposure_stops[0]) * share
        gain = gain * 2.0 ** told[1]
    for c in range(3):
        table = np.empty(256, np.uint8)
        for v in range(256):
            lit = min(_LINEAR[v] ** power * gain[c], 1.0)
            table[v] = np.uint8(_VALUES[int(2048 * np.sqrt(lit) + 0.5)] + 0.5)
        for y in range(out.shape[0]):
            for x in range(out.shape[1]):
                out[y, x, c] = table[image[y, x, c]]


@compiled
def _log_within(ends: Any, share: Any) -> Any:
    """Between two positive ends, evenly on a logarithmic scale."""
    return ends[0] * (ends[1] / ends[0]) ** share


@compiled
def blackbody(kelvin: Any) -> Any:
    """Linear RGB of a Planckian radiator, about; (3,).

    Chromaticity after Kim et al., US patent 7,024,034 (cubic in 1000 / K, 1667 to 25000 K), through
    the sRGB matrix of IEC 61966-2-1.
    """
    t = 1000.0 / min(max(kelvin, 1667.0), 25000.0)
    if kelvin <= 4000:
        x = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    else:
        x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    if kelvin <= 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    elif kelvin <= 4000:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    else:
        y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    big_x, big_z = x / y, (1 - x - y) / y
    rgb = np.empty(3)
    rgb[0] = 3.2406 * big_x - 1.5372 - 0.4986 * big_z
    rgb[1] = -0.9689 * big_x + 1.8758 + 0.0415 * big_z
    rgb[2] = 0.0557 * big_x - 0.2040 + 1.0570 * big_z
    return np.maximum(rgb, 0.02)


@compiled
def _lamp(image: Any, p: Any, strength: Any, turn: Any, out: Any) -> None:
    """Light from one side on a head that is an ellipsoid: Lambert's cosine law over even light."""
    lamp_x, lamp_y, lamp_z = 0.85 * np.cos(turn), 0.85 * np.sin(turn), 0.53
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            x, y = place(p, column, row)
            nx, ny = (x - 0.4 * p.turn) / (1.15 * HALF_HEAD), (y - 0.35) / 1.9
            out_of_head = nx * nx + ny * ny
            if out_of_head > 0.96:
                shrink = np.sqrt(0.96 / out_of_head)
                nx, ny = nx * shrink, ny * shrink
            facing = nx * lamp_x + ny * lamp_y + np.sqrt(1 - nx * nx - ny * ny) * lamp_z
            gain = (1 - strength) + strength * 1.9 * max(facing, 0.0)
            for c in range(3):
                lit = min(_LINEAR[image[row, column, c]] * gain, 1.0)
                out[row, column, c] = np.uint8(_VALUES[int(2048 * np.sqrt(lit) + 0.5)] + 0.5)
