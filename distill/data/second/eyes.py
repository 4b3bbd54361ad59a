"""`eyes`: the eye region of another photo of the same person, pasted in place."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from distill.data.faces import FACE_SIZE, AlignedFace, similarity
from distill.data.second.canvas import (
    Floats,
    Frame,
    blend,
    blurred,
    brightness,
    finished,
    floats,
    smooth_step,
)
from distill.data.second.options import SecondOptions

HALF_WIDTH, HALF_HEIGHT = 0.94, 0.31
"""Half axes of the pasted region, in eye distances: both eyes, without the brows."""
FEATHER = 0.40
"""Share of the region over which it fades out."""
DROP = 0.04
"""How far the middle of the region lies below the eye line, in eye distances."""
LIGHT_BLUR = 0.20
"""Brightness that changes over more than this is the sample's, finer detail the donor's (sigma, in
eye distances)."""
MAX_GAIN = 2.5
"""Largest brightness of a detail over that of its surroundings, and smallest as its inverse."""
OWN_HUE = 0.4
"""Share of a detail's own colour that is kept."""
DARK = 8.0
"""Grey levels added to both sides of a ratio, so that black does not decide it."""
MAX_TURN = 0.35
"""Heads turned further do not give or take eyes (see `Frame.turn`)."""
MAX_TURN_APART = 0.25
"""Largest difference in the turn of two heads whose eyes fit each other."""


def eyes(
    face: AlignedFace, rng: np.random.Generator, other: AlignedFace | None, options: SecondOptions
) -> tuple[AlignedFace, str]:
    """Eyes of ``other`` on ``face``, placed by the eye landmarks; else jittered eyes of ``face``.

    A photo with the head turned another way does not count as another one. The region's colours
    are bent smoothly to those along its edge, so that no seam is seen.
    """
    frame = Frame(face)
    if other is None or not _fit(frame.turn, Frame(other).turn):
        matrix, donor, how = _jitter(face, rng, options), face, "own, jittered"
    else:
        matrix, donor, how = similarity(other.points[:2], face.points[:2]), other, "other photo"
    size = face.rgb.shape[0]
    moved = cv2.warpAffine(floats(donor.rgb), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    region = _region(frame)
    below = floats(face.rgb)
    pasted = _toned(np.asarray(moved, np.float32), below, frame.unit)
    return AlignedFace(finished(blend(below, pasted, region)), face.points), how


def _fit(turn: float, other: float) -> bool:
    """Whether eyes of a head turned by one amount pass on a head turned by another."""
    return max(abs(turn), abs(other)) <= MAX_TURN and abs(turn - other) <= MAX_TURN_APART


def _region(frame: Frame) -> Floats:
    """Soft coverage of the eye region, exactly 0 outside it; (size, size)."""
    x, y = frame.grid
    # Power 4: flatter than an ellipse, so that the outer corners of the eyes are inside.
    radius = (np.abs(x / HALF_WIDTH) ** 4 + np.abs((y - DROP) / HALF_HEIGHT) ** 4) ** 0.25
    return smooth_step(np.asarray(radius, np.float32), 1.0, 1.0 - FEATHER)


def _toned(moved: Floats, below: Floats, unit: float) -> Floats:
    """The fine detail of ``moved`` on the light and hue of ``below``.

    The donor's own light may be another (sun from one side, blue shadows): only what stands out
    from its surroundings is taken, its brightness in full and its colour by `OWN_HUE`.
    """
    sigma = LIGHT_BLUR * unit
    around = blurred(moved, sigma)
    light = (brightness(moved) + DARK) / (brightness(around) + DARK)
    hue = (moved + DARK) / (around + DARK) / light[..., None]
    detail = np.clip(light, 1 / MAX_GAIN, MAX_GAIN)[..., None] * hue**OWN_HUE
    return np.asarray(blurred(below, sigma) * detail, np.float32)


def _jitter(
    face: AlignedFace, rng: np.random.Generator, options: SecondOptions
) -> npt.NDArray[np.float64]:
    """A small turn, scale and shift about the point between the eyes; (2, 3)."""
    centre = face.points[:2].mean(axis=0).astype(np.float64)
    degrees = rng.uniform(-1, 1) * options.eye_degrees
    matrix = cv2.getRotationMatrix2D(
        tuple(centre.tolist()), degrees, rng.uniform(*options.eye_scale)
    )
    matrix[:, 2] += rng.uniform(-1, 1, size=2) * options.eye_shift * face.rgb.shape[0] / FACE_SIZE
    return np.asarray(matrix, np.float64)
