"""Faces moved onto ArcFace's 112x112 template, by the similarity of five landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from distill.data.images import Pixels, Unusable

Points = npt.NDArray[np.float32]
"""(5, 2) float32, x and y in pixels: left eye, right eye (as seen), nose, left and right mouth."""

FACE_SIZE = 112
"""Height and width of an aligned face, in pixels."""
TEMPLATE: Points = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float32,
)
"""Where the five points lie in an aligned 112x112 face (Deng et al., "ArcFace", CVPR 2019)."""


@dataclass(frozen=True)
class AlignedFace:
    """A face on the template.

    Attributes:
        rgb: (112, 112, 3) uint8.
        points: its five landmarks in the coordinates of ``rgb``, (5, 2) float32.
    """

    rgb: Pixels
    points: Points


def align(rgb: Pixels, points: Points) -> Pixels:
    """The face at ``points``, on the template; (112, 112, 3) uint8. See `align_face`."""
    return align_face(rgb, points).rgb


def align_face(rgb: Pixels, points: Points) -> AlignedFace:
    """The face at ``points``, moved onto the template by a least-squares similarity.

    Photographs much larger than the result are first reduced by area averaging, so that nothing
    aliases. What lies outside the photograph is black, as in the common training sets.

    Args:
        rgb: the photograph, (H, W, 3) uint8.
        points: five landmarks in it, (5, 2).

    Raises:
        Unusable: the landmarks lie on one spot or are not finite.
    """
    matrix = similarity(points, TEMPLATE)
    moved = apply(matrix, points)
    reduction = int(1.0 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if reduction >= 2:
        rgb, back = _reduced(rgb, matrix, reduction)
        matrix = (_homogeneous(matrix) @ _homogeneous(back))[:2]
    return AlignedFace(warped(rgb, matrix), moved)


def warped(rgb: Pixels, matrix: npt.NDArray[np.float64], size: int = FACE_SIZE) -> Pixels:
    """A photograph moved by a (2, 3) matrix, bilinearly; (size, size, 3), black outside of it."""
    moved = cv2.warpAffine(rgb, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(moved, dtype=np.uint8)


def resized(rgb: Pixels) -> Pixels:
    """A square picture, taken for an aligned face, at 112x112.

    Raises:
        Unusable: it is not square.
    """
    height, width = rgb.shape[:2]
    if height != width:
        raise Unusable(f"{width}x{height} pixels: an aligned face is square")
    if height == FACE_SIZE:
        return rgb
    method = cv2.INTER_AREA if height > FACE_SIZE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (FACE_SIZE, FACE_SIZE), interpolation=method), np.uint8)


def similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The rotation, scale and shift that bring ``source`` closest to ``target``; (2, 3) float64.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    IEEE PAMI 13(4), 1991, equations 40 to 43; reflections are excluded.

    Args:
        source: (N, 2).
        target: (N, 2).

    Raises:
        Unusable: the source points coincide or are not finite.
    """
    p, q = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if not np.isfinite(p).all() or float(np.var(p, axis=0).sum()) < 1e-6:
        raise Unusable("landmarks lie on one spot or are not finite")
    p_mean, q_mean = p.mean(axis=0), q.mean(axis=0)
    u, d, vt = np.linalg.svd((q - q_mean).T @ (p - p_mean) / len(p))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    turn = u @ np.diag(sign) @ vt
    scale = float((d * sign).sum() / np.var(p, axis=0).sum())
    return np.hstack([scale * turn, (q_mean - scale * turn @ p_mean)[:, None]])


def apply(matrix: npt.NDArray[np.floating], points: npt.ArrayLike) -> Points:
    """(N, 2) points moved by a (2, 3) affine matrix; float32."""
    p = np.asarray(points, np.float64)
    moved: Points = (p @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return moved


def _reduced(
    rgb: Pixels, matrix: npt.NDArray[np.float64], factor: int
) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """The part of ``rgb`` that the warp needs, ``factor`` times smaller, and the way back.

    Returns:
        the reduced part, and the (2, 3) matrix from its coordinates to those of ``rgb``.
    """
    side = FACE_SIZE
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
    inverse = np.linalg.inv(_homogeneous(matrix))[:2]
    seen = apply(inverse, corners)
    h, w = rgb.shape[:2]
    left, top = (max(0, int(v) - 2 * factor) for v in seen.min(axis=0))
    right, bottom = (int(v) + 2 * factor for v in seen.max(axis=0))
    part = rgb[top : max(min(bottom, h), 1), left : max(min(right, w), 1)]
    if part.size == 0:
        return rgb[:1, :1], np.array([[1.0, 0, 0], [0, 1.0, 0]])
    new = (max(1, part.shape[1] // factor), max(1, part.shape[0] // factor))
    sx, sy = part.shape[1] / new[0], part.shape[0] / new[1]
    back = np.array([[sx, 0, left + 0.5 * sx - 0.5], [0, sy, top + 0.5 * sy - 0.5]])
    return np.asarray(cv2.resize(part, new, interpolation=cv2.INTER_AREA), np.uint8), back


def _homogeneous(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(2, 3) to (3, 3)."""
    return np.vstack([matrix, [0.0, 0.0, 1.0]])
