"""`glasses`: frames taken off where they are found, or put on."""

from __future__ import annotations

import numpy as np

from distill.data.faces import AlignedFace
from distill.data.second.canvas import Frame, finished
from distill.data.second.frames import draw_frames
from distill.data.second.options import SecondOptions


def glasses(
    face: AlignedFace, rng: np.random.Generator, other: AlignedFace | None, options: SecondOptions
) -> tuple[AlignedFace, str]:
    """Removes or draws frames, as `SecondOptions.glasses` says; ``other`` is not used."""
    frame = Frame(face)
    drawn = draw_frames(frame, rng, dark_lenses=rng.random() < options.sunglasses)
    return AlignedFace(finished(drawn.rgb), face.points), f"drawn {drawn.how}"
