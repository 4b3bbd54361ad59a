"""Caps, beanies and hats, drawn with cloth, seams and shading above the brow line."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import between, bits, choice, grainy, hills
from distill.data.second.pixels.face import head_x, line_at, place, rows_between
from distill.data.second.pixels.filters import clipped, mix_in, step

CLOTHS = np.array(
    [
        [34, 34, 38], [36, 48, 84], [118, 120, 124], [150, 38, 40], [86, 90, 58],
        [96, 30, 48], [190, 170, 138], [222, 222, 218], [72, 96, 128], [186, 142, 52],
    ]
)  # fmt: skip
"""Black, navy, grey, red, olive, burgundy, beige, white, denim, mustard (RGB)."""
CAP, BEANIE, HAT = range(3)


@compiled
def worn(
    style: Any, image: Any, p: Any, look: Any, gap: Any, state: Any, out: Any, told: Any
) -> None:
    """A cap, beanie or hat that ends at the brow line.

    ``told`` gets the colour at place 1.
    """
    colour, key = choice(state, len(CLOTHS)), bits(state)
    cloth = CLOTHS[colour]
    told[1] = colour
    light = clipped((0.5 * look.light + 60) / 130, 0.55, 1.15)
    shape, ribs = between(state, 0.0, 1.0), between(state, 34.0, 46.0)
    top, bottom = rows_between(p, -9.0, -gap)
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = place(p, column, row)
            line = line_at(look, x, gap)
            across = head_x(p, look, x)
            if style == CAP:
                shade, share = _cap(p, across, y, line, shape, key)
            elif style == BEANIE:
                shade, share = _beanie(p, across, y, line, shape, ribs, key)
            else:
                shade, share = _hat(p, across, y, line, shape)
            share *= step(y, line, line - 0.02)
            if share == 0:
                continue
            side = 1 + 0.6 * clipped(look.lean * across, -0.5, 0.5)
            noise = 1.2 * grainy(key, column, row) + 0.3 * look.grain * grainy(key, row, column)
            lit, gloss = light * shade * side, noise + 6 * clipped(shade - 0.8, 0.0, 1.0)
            r, g, b = cloth[0] * lit + gloss, cloth[1] * lit + gloss, cloth[2] * lit + gloss
            mix_in(out, row, column, r, g, b, share)


@compiled
def _dome(x: Any, y: Any, half_width: Any, top: Any, base: Any) -> Any:
    """Radius in a half ellipse that stands on ``base`` and reaches up to ``top``; 1 on its rim."""
    return np.hypot(x / half_width, (y - base) / (base - top))


@compiled
def _round(x: Any, half_width: Any) -> Any:
    """Shading of an upright cylinder lit from the front: 1 in the middle, darker to the sides."""
    across = min(abs(x) / half_width, 1.0)
    return 0.45 + 0.6 * np.sqrt(1 - 0.85 * across * across)


@compiled
def _seam(distance: Any, width: Any, depth: Any) -> Any:
    """Factor of a dark line where ``distance`` is 0."""
    return 1 - depth * np.exp(-((distance / width) ** 2))


@compiled
def _cap(p: Any, x: Any, y: Any, line: Any, shape: Any, key: Any) -> Any:
    """A baseball cap from the front: crown of panels over an arched visor."""
    joint = line - 0.30 - 0.10 * (1 - clipped(x, -1.0, 1.0) ** 2)
    lower = line - 0.02 - (0.02 + 0.10 * shape) * np.cos(clipped(x, -1.1, 1.1) * 1.4)
    above = step(y - lower, 0.0, -0.04)
    crown = step(_dome(x, y, 1.22, -2.05, line - 0.05), 1.0, 0.96) * above
    visor = step(abs(x), 1.14, 1.06) * above * step(y - joint, -0.06, 0.0)
    fold = 1 + 0.04 * hills(key, x * 2, y * 2)
    shade = _round(x, 1.25) * fold * _seam(x, 0.02, 0.35)
    shade *= _seam(abs(x) - 0.62 - 0.12 * (y + 1.0), 0.02, 0.25)
    depth = clipped((y - joint) / (lower - joint + 1e-6), 0.0, 1.0)
    peak = (0.50 + 0.38 * depth) * (1 - 0.18 * abs(x)) * _seam(y - lower + 0.05, 0.015, 0.15)
    on_visor = visor * step(y - joint, -0.02, 0.02)
    shade = shade * (1 - on_visor) + peak * on_visor
    return shade * _seam(y - joint, 0.035, 0.5), max(crown, visor)


@compiled
def _beanie(p: Any, x: Any, y: Any, line: Any, shape: Any, ribs: Any, key: Any) -> Any:
    """A knitted beanie with a ribbed cuff."""
    edge = line - 0.03 - 0.05 * np.cos(clipped(x, -1.2, 1.2) * 1.3)
    cuff = edge - 0.36 - 0.14 * shape
    inside = step(_dome(x, y, 1.24, -2.15, line + 0.25), 1.0, 0.96)
    around = np.arcsin(clipped(x / 1.26, -1.0, 1.0))
    rib = 1 + 0.16 * np.cos(around * ribs)
    stitch = 1 + 0.09 * np.cos(around * 30) * np.cos(y * 42 + 3 * np.sin(around * 15))
    on_cuff = step(y - cuff, -0.03, 0.01)
    shade = _round(x, 1.26) * (stitch * (1 - on_cuff) + rib * 1.06 * on_cuff)
    shade *= _seam(y - cuff, 0.04, 0.45) * (1 + 0.03 * hills(key, x * 2, y * 2))
    return shade, inside * step(y - edge, 0.0, -0.05)


@compiled
def _hat(p: Any, x: Any, y: Any, line: Any, shape: Any) -> Any:
    """A brimmed hat with a ribbon."""
    brim_y = line - 0.22
    middle = brim_y + (0.16 * shape - 0.06) * (clipped(x, -1.6, 1.6) / 1.6) ** 2
    brim = step(np.hypot(x / 1.62, (y - middle) / 0.20), 1.0, 0.93)
    crown = step(abs(x) + 0.10 * (y + 1.0), 1.04, 0.99) * step(y - brim_y, 0.02, -0.02)
    ribbon = step(y, brim_y - 0.42, brim_y - 0.38) * crown
    weave = 1 + 0.05 * np.cos(x * 60) * np.cos(y * 60)
    shade = _round(x, 1.08) * weave * (1 - 0.45 * ribbon)
    on_brim = brim * (1 - crown * step(y - middle, -0.02, -0.08))
    flat = (0.62 + 0.9 * clipped(y - middle + 0.10, 0.0, 0.3)) * weave
    shade = shade * (1 - on_brim) + flat * on_brim
    return shade * _seam(y - brim_y + 0.10, 0.05, 0.12 + 0.13 * shape), max(crown, brim)
