"""`crop`: a face cut out badly: too tight, too loose, turned, or with a side missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels import warp
from distill.data.second.pixels.draws import between, choice, choice_of

TEMPLATE_SIDE = 112
TIGHT, LOOSE, CUT = range(3)


@compiled
def crop(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """One style of a random extent; see `kinds`."""
    o = options[0]
    style = choice_of(state, o.crop_styles)
    told[0] = style
    size = image.shape[0]
    if style == CUT:
        share, side, shade = between(state, o.cut[0], o.cut[1]), choice(state, 4), choice(state, 2)
        told[1], told[2] = share, side
        _cut(image, round(share * size), side, shade, out)
        return
    zoom = o.crop_zoom[0] + (o.crop_zoom[1] - o.crop_zoom[0]) * between(state, 0.0, 1.0)
    told[1] = zoom
    zoom = zoom if style == TIGHT else 1 / zoom
    turn = np.deg2rad(between(state, -1.0, 1.0) * o.crop_degrees)
    linear = np.empty((2, 2))
    linear[0] = zoom * np.cos(turn), -zoom * np.sin(turn)
    linear[1] = zoom * np.sin(turn), zoom * np.cos(turn)
    reach = o.crop_shift * size / TEMPLATE_SIDE
    dx, dy = between(state, -reach, reach), between(state, -reach, reach)
    matrix = warp.about((size - 1) / 2, (size - 1) / 2, linear, dx, dy)
    warp.warped(image, matrix, out)
    warp.moved(matrix, points, moved)


@compiled
def _cut(image: Any, width: Any, side: Any, shade: Any, out: Any) -> None:
    """A strip at the left, right, upper or lower edge, black or grey."""
    size = image.shape[0]
    value = np.uint8(0) if shade == 0 else np.uint8(127)
    if side == 0:
        out[:, :width] = value
    elif side == 1:
        out[:, size - width :] = value
    elif side == 2:
        out[:width] = value
    else:
        out[size - width :] = value
