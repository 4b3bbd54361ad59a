"""`glasses`: frames taken off where they were found, or put on."""

from __future__ import annotations

from typing import Any

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import bits, uniform
from distill.data.second.pixels.face import look_at, plane_of
from distill.data.second.pixels.frames import draw_frames
from distill.data.second.pixels.removal import take_off

REMOVE, DRAW, AUTO = range(3)
DRAWN, SUNGLASSES, REMOVED, NONE_FOUND, LEFT = range(5)
FOUND, DARK = 1, 2
"""Bits of ``worn``: frames were found, they are sunglasses. (Packs may hold more, of old ones.)"""


@compiled
def glasses(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """Removes or draws frames; dark lenses stay, as what is behind them is not in the photo.

    See `kinds`.
    """
    o = options[0]
    p = plane_of(points, image.shape[0])
    look = look_at(image, p)
    key, dark = bits(state), uniform(state) < o.sunglasses
    if o.glasses != DRAW and worn & FOUND and not worn & DARK:
        told[0] = REMOVED
        take_off(image, p, look, key, out)
    elif o.glasses == REMOVE:
        told[0] = LEFT if worn & FOUND else NONE_FOUND
    else:
        told[0] = SUNGLASSES if dark else DRAWN
        draw_frames(image, p, look, dark, state, out, told)
