"""A fringe of strands in the colours and with the texture of the photo's own hair."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import between, bits, choice, grainy, hills
from distill.data.second.pixels.face import (
    HAIR_STEPS,
    head_x,
    line_at,
    pixel_of,
    place,
    rows_between,
)
from distill.data.second.pixels.filters import clipped, luma, mix_in, step
from distill.data.second.pixels.warp import sample

NATURAL = np.array(
    [[28, 24, 22], [58, 42, 32], [96, 68, 46], [150, 116, 74], [132, 128, 124], [112, 62, 38]]
)
"""Black, dark brown, brown, blond, grey and red: where the photo shows no hair."""
STRAIGHT, SWEPT_LEFT, SWEPT_RIGHT, CURTAIN, WISPY = range(5)
CUTS = 5
"""Shapes of the fringe's lower edge."""
CROWN = -1.85
"""Where strands begin, in units."""
OWN_TEXTURE = 0.35
"""Share of the detail of the photo's own hair that strands take on."""


@compiled
def fringe(image: Any, p: Any, look: Any, gap: Any, state: Any, out: Any, told: Any) -> None:
    """Hair that falls from the crown to the brow line.

    ``told`` gets the cut, and 1 where the hair is the photo's own, at places 1 and 2.
    """
    cut, kind, key = choice(state, CUTS), choice(state, len(NATURAL)), bits(state)
    own = look.hair_share > 0
    hair = look.hair if own else _natural(kind)
    long = between(state, 0.0, 0.05)
    told[1], told[2] = cut, 1.0 if own else 0.0
    top, bottom = rows_between(p, -9.0, -gap)
    pixel = np.empty(3)
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = place(p, column, row)
            line = line_at(look, x, gap)
            across = head_x(p, look, x)
            # Hair lies on a round head: nothing stands out at the sides.
            inside = step(np.hypot(across / 1.20, (y - 0.1) / 2.1), 1.03, 0.94)
            if inside == 0 or y > line:
                continue
            strand, along = _strand(cut, across, y, line)
            share = _coverage(p, cut, key, strand, y, line, long) * inside
            if share == 0:
                continue
            shade = _shade(p, key, strand, along, y, across)
            r, g, b = _coloured(hair, shade)
            detail = _own_detail(image, p, look, strand, along, pixel) if own else 1.0
            noise = 0.5 * look.grain * grainy(key, column, row)
            lit = detail * (1 + 0.5 * clipped(look.lean * across, -0.4, 0.4))
            mix_in(out, row, column, r * lit + noise, g * lit + noise, b * lit + noise, share)


@compiled
def _natural(kind: Any) -> Any:
    """Colours of dyed or lost hair from dark to light."""
    hair = np.empty((HAIR_STEPS, 3))
    for k in range(HAIR_STEPS):
        for c in range(3):
            hair[k, c] = clipped(NATURAL[kind, c] * (0.45 + 0.32 * k), 6.0, 230.0)
    return hair


@compiled
def _edge(cut: Any, x: Any, line: Any) -> Any:
    """Height of the fringe's lower edge at x, not below ``line``."""
    if cut == SWEPT_LEFT:
        rise = 0.16 * clipped(x + 0.9, 0.0, 2.0) ** 1.3
    elif cut == SWEPT_RIGHT:
        rise = 0.16 * clipped(0.9 - x, 0.0, 2.0) ** 1.3
    elif cut == CURTAIN:
        rise = 0.45 * np.exp(-((x / 0.35) ** 2))
    elif cut == WISPY:
        rise = 0.10 + 0.08 * np.cos(5 * x)
    else:
        rise = 0.03 + 0.03 * np.cos(3 * x)
    return line - 0.02 - rise


@compiled
def _strand(cut: Any, x: Any, y: Any, line: Any) -> Any:
    """Which strand passes a place, named by the x of its tip, and how far along it the place is.

    Strands start close together at the crown and bend outwards to their tips.
    """
    along = clipped((y - CROWN) / (_edge(cut, x, line) - CROWN), 0.0, 1.0)
    bent = along**1.6
    close, lean = 0.80, 0.0
    if cut == SWEPT_LEFT:
        lean = 0.55
    elif cut == SWEPT_RIGHT:
        lean = -0.55
    elif cut == CURTAIN:
        close = 0.40
    return (x - lean * (1 - bent)) / (close + (1 - close) * bent), along


@compiled
def _coverage(p: Any, cut: Any, key: Any, strand: Any, y: Any, line: Any, long: Any) -> Any:
    """1 inside the hair; towards the tips it thins out strand by strand, down to the brow line."""
    fine = min(p.unit / 2.4, 50.0)
    lock = hills(key, 0.28 * fine * strand, 0.0)
    single = hills(key + np.uint64(1), fine * strand, 1.5 * y)
    ragged = 0.30 if cut == WISPY else 0.20
    tip = _edge(cut, strand, line) + long + 0.02 * lock
    # How far up from its tip a place is; strands get narrower over `ragged`.
    up = (tip - y) / ragged
    return step(1.5 * up + 0.55 * single - 0.1, 0.0, 0.8) * step(y, line, line - 0.03)


@compiled
def _shade(p: Any, key: Any, strand: Any, along: Any, y: Any, x: Any) -> Any:
    """Brightness in [0, 1]: strands in locks, a ring of light round the head, dark roots."""
    fine = min(p.unit / 2.4, 50.0)
    lock = hills(key + np.uint64(2), 0.25 * fine * strand, 0.8 * along)
    single = hills(key + np.uint64(3), fine * strand, 2.0 * along)
    ring = np.exp(-(((y + 1.0 + 0.15 * x * x) / 0.18) ** 2))
    return 0.42 + 0.09 * lock + 0.15 * single + 0.16 * ring - 0.10 * step(along, 0.5, 0.2)


@compiled
def _coloured(hair: Any, shade: Any) -> Any:
    """The hair's colour of a brightness."""
    at = clipped(shade, 0.0, 0.999) * (HAIR_STEPS - 1)
    low = int(at)
    u = at - low
    r = hair[low, 0] * (1 - u) + hair[low + 1, 0] * u
    g = hair[low, 1] * (1 - u) + hair[low + 1, 1] * u
    b = hair[low, 2] * (1 - u) + hair[low + 1, 2] * u
    return r, g, b


@compiled
def _own_detail(image: Any, p: Any, look: Any, strand: Any, along: Any, pixel: Any) -> Any:
    """Brightness of the photo's own hair at a place the strand is taken from, over its middle one.

    The strip of hair at the top of the head is drawn out along the strands, to and fro.
    """
    fold = abs((2.5 * along) % 2.0 - 1.0)
    column, row = pixel_of(p, 0.8 * strand, -1.42 + 0.40 * fold)
    sample(image, column, row, pixel)
    light = luma(pixel[0], pixel[1], pixel[2])
    middle = look.hair[HAIR_STEPS // 2]
    usual = luma(middle[0], middle[1], middle[2]) + 4.0
    if light > 0.72 * look.light or light < 4:
        return 1.0
    return clipped(((light + 4.0) / usual) ** OWN_TEXTURE, 0.75, 1.35)
