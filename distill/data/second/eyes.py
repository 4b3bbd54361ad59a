"""`eyes`: the eye region of another photo of the same person, pasted in place."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from distill.data.faces import FACE_SIZE, AlignedFace, similarity
from distill.data.second.canvas import Floats, Frame, blend, blurred, finished, floats, smooth_step
from distill.data.second.options import SecondOptions

HALF_WIDTH, HALF_HEIGHT = 0.98, 0.34
"""Half axes of the pasted region, in eye distances: both eyes, without the brows."""
FEATHER = 0.30
"""Share of the region over which it fades out."""
DROP = 0.03
"""How far the middle of the region lies below the eye line, in eye distances."""
SCALE_LIMITS = (0.75, 1.33)
"""A donor whose eyes would have to be scaled by more is placed by all five points instead."""


def eyes(
    face: AlignedFace, rng: np.random.Generator, other: AlignedFace | None, options: SecondOptions
) -> tuple[AlignedFace, str]:
    """Eyes of ``other`` on ``face``, placed by the eye landmarks; else jittered eyes of ``face``.

    The region's colours are bent smoothly to those along its edge, so no seam is seen.
    """
    if other is None:
        matrix, donor, how = _jitter(face, rng, options), face, "own, jittered"
    else:
        matrix, donor, how = _placement(other, face), other, "other photo"
    size = face.rgb.shape[0]
    moved = cv2.warpAffine(floats(donor.rgb), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    frame = Frame(face)
    region = _region(frame)
    below = floats(face.rgb)
    pasted = _toned(np.asarray(moved, np.float32), below, region, frame.unit)
    return AlignedFace(finished(blend(below, pasted, region)), face.points), how


def _region(frame: Frame) -> Floats:
    """Soft coverage of the eye region, exactly 0 outside it; (size, size)."""
    x, y = frame.grid
    # Power 4: flatter than an ellipse, so that the outer corners of the eyes are inside.
    radius = (np.abs(x / HALF_WIDTH) ** 4 + np.abs((y - DROP) / HALF_HEIGHT) ** 4) ** 0.25
    return smooth_step(np.asarray(radius, np.float32), 1.0, 1.0 - FEATHER)


def _toned(moved: Floats, below: Floats, region: Floats, unit: float) -> Floats:
    """``moved`` plus a smooth field that makes it meet ``below`` in the fading edge."""
    edge = np.asarray(4 * region * (1 - region) + 1e-4, np.float32)
    weight = blurred(edge, 0.25 * unit)[..., None]
    return moved + blurred((below - moved) * edge[..., None], 0.25 * unit) / weight


def _placement(donor: AlignedFace, face: AlignedFace) -> npt.NDArray[np.float64]:
    """(2, 3) matrix from the donor's eyes to the face's; by all points where that is too wild."""
    source, target = donor.points.astype(np.float64), face.points.astype(np.float64)
    apart = float(np.hypot(*(source[1] - source[0])))
    if apart > 1e-3:
        matrix = similarity(source[:2], target[:2])
        low, high = SCALE_LIMITS
        if low <= np.hypot(*matrix[:, 0]) <= high:
            return matrix
    matrix = similarity(source, target)
    matrix[:, 2] += target[:2].mean(axis=0) - (
        matrix[:, :2] @ source[:2].mean(axis=0) + matrix[:, 2]
    )
    return matrix


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
