"""`forehead`: everything above the brows hidden, so that hair and hairline tell nothing.

The covered part ends at the brow line of the landmarks (`brow_gap` above the eye line); below it
no pixel changes.
"""

from __future__ import annotations

import numpy as np

from distill.data.faces import AlignedFace
from distill.data.second import hair, headwear
from distill.data.second.canvas import (
    Floats,
    Frame,
    blend,
    blurred,
    brightness,
    finished,
    floats,
    grain,
    skin_colour,
    smooth_noise,
    smooth_step,
)
from distill.data.second.options import SecondOptions

SKULL = (1.16, 1.95, 0.1)
"""Half width, half height and drop of the outline of a head, in eye distances."""
FADE = 0.10
"""Distance over which a cover fades out above the brow line, in eye distances."""


def forehead(
    face: AlignedFace, rng: np.random.Generator, other: AlignedFace | None, options: SecondOptions
) -> tuple[AlignedFace, str]:
    """The head above the brows under bare skin, a fringe, a cap, a beanie or a hat.

    ``other`` is not used. Colours of skin and hair come from the photo.
    """
    style = options.forehead_styles[int(rng.integers(len(options.forehead_styles)))]
    frame = Frame(face)
    line = -options.brow_gap
    match style:
        case "skin":
            colour, coverage, how = *_bare_skin(frame, line, rng), "skin"
        case "fringe":
            colour, coverage, how = hair.fringe(frame, line, rng)
        case _:
            colour, coverage, how = headwear.worn(style, frame, line, rng)
    _, y = frame.grid
    coverage = coverage * smooth_step(y, line, line - 0.02)
    result = blend(floats(face.rgb), colour, coverage)
    return AlignedFace(finished(result), face.points), how


def head_outline(frame: Frame, wider: float = 1.0) -> Floats:
    """Radius of each pixel in the head's ellipse: 1 on its outline; (size, size)."""
    x, y = frame.head
    half_width, half_height, drop = SKULL
    return np.asarray(
        np.hypot(x / (half_width * wider), (y - drop) / (half_height * wider)), np.float32
    )


def _bare_skin(frame: Frame, line: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A bald head: the photo's skin, shaded as a dome, with its own grain; colour and coverage."""
    x, y = frame.head
    dome = np.clip(head_outline(frame), 0, 1.1)
    lit = rng.uniform(-0.25, 0.25)
    shade = 1.04 - 0.30 * dome**4 + 0.08 * lit * x - 0.03 * np.abs(y + 0.9)
    gloss = np.exp(-(((x - lit) / 0.45) ** 2) - ((y + 0.95) / 0.30) ** 2) * rng.uniform(4, 12)
    size = frame.size
    pores = blurred(rng.standard_normal((size, size)).astype(np.float32), 0.5)
    uneven = 2.0 * smooth_noise(rng, size, size / 9) + grain(frame) * pores
    colour = _forehead_tone(frame) * shade[..., None] + (gloss + uneven)[..., None]
    edge = smooth_step(head_outline(frame), 1.03, 0.95)
    coverage = edge * smooth_step(y, line, line - 2.5 * FADE)
    return np.asarray(colour, np.float32), coverage


def _forehead_tone(frame: Frame) -> Floats:
    """Skin colour over the picture: the lower forehead's where it is seen, else the cheeks'."""
    rgb = floats(frame.face.rgb)
    x, y = frame.grid
    skin = skin_colour(frame)
    near = (np.abs(x) < 0.55) & (y < -0.42) & (y > -0.85)
    alike = np.abs(rgb - skin).sum(axis=2) < 0.35 * skin.sum()
    chosen = (near & alike).astype(np.float32)
    if chosen.sum() < 12:
        return np.broadcast_to(skin, rgb.shape).astype(np.float32)
    spread = 0.35 * frame.unit
    weight = blurred(chosen, spread)[..., None] + 1e-3
    local = blurred(rgb * chosen[..., None], spread) + 1e-3 * skin
    tone = np.asarray(local / weight, np.float32)
    return tone * float(np.clip(skin @ [0.3, 0.6, 0.1] / max(brightness(tone).mean(), 1), 0.9, 1.1))
