"""`forehead`: everything above the brows hidden, so that hair and hairline tell nothing.

The covered part ends above the brows (`face.line_at`); below it no pixel changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import between, bits, choice_of, grainy, hills
from distill.data.second.pixels.face import (
    head_x,
    line_at,
    look_at,
    place,
    plane_of,
    rows_between,
)
from distill.data.second.pixels.filters import clipped, mix_in, smoothed, step
from distill.data.second.pixels.hair import fringe
from distill.data.second.pixels.headwear import worn as put_on

SKIN, FRINGE, CAP, BEANIE, HAT = range(5)
SKULL_WIDTH, SKULL_HEIGHT, SKULL_DROP = 1.16, 1.95, 0.1
"""Half width, half height and drop of the outline of a head, in units."""
FADE = 0.10
"""Distance over which a cover fades out above the brow line, in units."""


@compiled
def forehead(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """The head above the brows under bare skin, a fringe, a cap, a beanie or a hat.

    Colours of skin and hair come from the photo; see `kinds`.
    """
    o = options[0]
    p = plane_of(points, image.shape[0])
    look = look_at(image, p)
    style = choice_of(state, o.forehead_styles)
    told[0] = style
    if style == SKIN:
        _bare_skin(image, p, look, o.brow_gap, state, out)
    elif style == FRINGE:
        fringe(image, p, look, o.brow_gap, state, out, told)
    else:
        put_on(style - CAP, image, p, look, o.brow_gap, state, out, told)


@compiled
def _bare_skin(image: Any, p: Any, look: Any, gap: Any, state: Any, out: Any) -> None:
    """A bald head: the photo's skin, shaded as a dome, with its own grain."""
    tone = _forehead_tone(image, p, look, gap)
    lit, gloss, key = between(state, -0.25, 0.25), between(state, 4.0, 12.0), bits(state)
    lit = clipped(lit + 1.5 * look.lean, -0.5, 0.5)
    top, bottom = rows_between(p, -9.0, -gap)
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = place(p, column, row)
            line = line_at(look, x, gap)
            across = head_x(p, look, x)
            dome = min(np.hypot(across / SKULL_WIDTH, (y - SKULL_DROP) / SKULL_HEIGHT), 1.1)
            share = step(dome, 1.03, 0.95) * step(y, line, line - 2.5 * FADE)
            if share == 0:
                continue
            shade = 1.04 - 0.30 * dome**4 + 0.08 * lit * across - 0.03 * abs(y + 0.9)
            spot = np.exp(-(((across - lit) / 0.45) ** 2) - ((y + 0.95) / 0.30) ** 2)
            extra = gloss * spot + 2.0 * hills(key, x * 4, y * 4)
            extra += 0.8 * look.grain * grainy(key, column, row)
            here = tone[row, column]
            r, g, b = here[0] * shade, here[1] * shade, here[2] * shade
            mix_in(out, row, column, r + extra, g + extra, b + extra, share)


@compiled
def _forehead_tone(image: Any, p: Any, look: Any, gap: Any) -> Any:
    """Skin colour over the picture: the lower forehead's where it is seen, else the cheeks'."""
    known = np.zeros((p.size, p.size, 4), np.float32)
    limit = 0.35 * (look.skin[0] + look.skin[1] + look.skin[2])
    top, bottom = rows_between(p, -0.95, -gap)
    for row in range(top, bottom):
        for column in range(p.size):
            x, y = place(p, column, row)
            line = line_at(look, x, gap)
            if abs(x) > 0.6 or y > line - 0.04 or y < line - 0.45:
                continue
            r, g, b = image[row, column]
            apart = abs(r - look.skin[0]) + abs(g - look.skin[1]) + abs(b - look.skin[2])
            if apart < limit:
                known[row, column, 0], known[row, column, 1] = r, g
                known[row, column, 2], known[row, column, 3] = b, 1
    spread = smoothed(known, max(2.0, 0.35 * p.unit))
    for row in range(p.size):
        for column in range(p.size):
            here = spread[row, column]
            for c in range(3):
                here[c] = (here[c] + 0.02 * look.skin[c]) / (here[3] + 0.02)
    return spread
