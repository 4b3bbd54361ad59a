"""`pose`: another photo of the same person, pulled towards the frontal template."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from distill.data.faces import FACE_SIZE, TEMPLATE, AlignedFace, apply, similarity
from distill.data.second.options import SecondOptions

MAX_STRETCH = 1.5
"""Largest ratio between the two axes of the warp: a profile is not drawn into a front view."""


def pose(
    face: AlignedFace, rng: np.random.Generator, other: AlignedFace | None, options: SecondOptions
) -> tuple[AlignedFace, str]:
    """``other`` warped to the template by its points; without one, a random affine of ``face``.

    What the warp needs from outside the photo is its repeated edge.
    """
    if other is not None:
        return warped(other, frontal(other)), "other photo"
    return warped(face, _random_affine(face, rng, options)), "random affine"


def frontal(face: AlignedFace) -> npt.NDArray[np.float64]:
    """The (2, 3) affine matrix that brings the five points closest to the template.

    Full least squares (six unknowns, ten equations); where that would stretch the face by more
    than `MAX_STRETCH` it is mixed with the similarity of the same points until it does not.
    """
    target = TEMPLATE.astype(np.float64) * (face.rgb.shape[0] / FACE_SIZE)
    points = np.hstack([face.points.astype(np.float64), np.ones((5, 1))])
    full = np.linalg.lstsq(points, target, rcond=None)[0].T
    rigid = similarity(face.points, target)
    mixes = (rigid + share * (full - rigid) for share in np.linspace(1.0, 0.0, 21))
    return next((m for m in mixes if _is_tame(m)), rigid)


def warped(face: AlignedFace, matrix: npt.NDArray[np.float64]) -> AlignedFace:
    """A face and its points moved by a (2, 3) matrix, the size kept."""
    rgb = cv2.warpAffine(
        face.rgb,
        matrix,
        face.rgb.shape[1::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return AlignedFace(np.asarray(rgb, np.uint8), apply(matrix, face.points))


def _is_tame(matrix: npt.NDArray[np.float64]) -> bool:
    """Whether a warp neither mirrors a face nor stretches it too much."""
    long, short = np.linalg.svd(matrix[:, :2], compute_uv=False)
    return bool(np.linalg.det(matrix[:, :2]) > 0 and long <= MAX_STRETCH * short)


def _random_affine(
    face: AlignedFace, rng: np.random.Generator, options: SecondOptions
) -> npt.NDArray[np.float64]:
    """A turn, a scale along each axis, a shear and a shift, about the middle of the image."""
    size = face.rgb.shape[0]
    turn = np.deg2rad(rng.uniform(-1, 1) * options.pose_degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[1.0, rng.uniform(-1, 1) * options.pose_shear], [0.0, 1.0]])
    linear = rotation @ shear @ np.diag(rng.uniform(*options.pose_scale, size=2))
    shift = rng.uniform(-1, 1, size=2) * options.pose_shift * size / FACE_SIZE
    centre = np.full(2, (size - 1) / 2)
    return np.hstack([linear, (centre - linear @ centre + shift)[:, None]])
