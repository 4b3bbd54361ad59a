"""Faces in photographs: found by libfacedetection, moved onto ArcFace's 112x112 template.

libfacedetection (by Shiqi Yu, BSD; its small model is inside) gives a box and five points in whole
pixels. Photographs are searched at two sizes, so that a portrait that fills
the picture and a face in a group are both found; then each face is looked at once more at a size
where the points are fine enough for an aligned crop.

It runs on OpenMP threads: worker processes that detect must be spawned, not forked, and should
be started with ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from distill.data import libfacedetection
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

COARSE_SIDE, FINE_SIDE = 320, 960
"""Longest side, in pixels, of the two copies of a photograph that are searched."""
MAX_ENLARGEMENT = 3.0
"""Small crops are enlarged by at most this before the search."""
REFINED_FACE = 160.0
"""Longest side, in pixels, that a face is brought to before its points are taken."""
MAX_REFINED = 32
"""Faces of one photograph that get a second look (by falling score)."""
MIN_OVERLAP = 0.35
"""Two finds that overlap by more than this (intersection over union) are one face."""


@dataclass(frozen=True)
class Face:
    """A face in a photograph.

    Attributes:
        box: left, top, right, bottom in pixels, (4,) float32; may reach outside the photograph.
        points: five landmarks, (5, 2) float32, see `Points`.
        score: the detector's confidence in [0, 1].
    """

    box: npt.NDArray[np.float32]
    points: Points
    score: float

    @property
    def side(self) -> float:
        """Longest side of the box, in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@dataclass(frozen=True)
class AlignedFace:
    """A face on the template.

    Attributes:
        rgb: (size, size, 3) uint8.
        points: its five landmarks in the coordinates of ``rgb``, (5, 2) float32.
    """

    rgb: Pixels
    points: Points


@dataclass(frozen=True)
class FaceDetector:
    """Finds faces. Holds no state beyond its settings, so it can be sent to worker processes.

    Attributes:
        min_score: finds below this confidence are dropped, in [0, 1].
    """

    min_score: float = 0.7

    def detect(self, rgb: Pixels) -> list[Face]:
        """The faces of a photograph, surest first.

        Args:
            rgb: (H, W, 3) uint8 of any size.

        Returns:
            Faces by falling score (then by size and place); none is an empty list.
        """
        found = [face for scale in _scales(rgb) for face in _find(rgb, scale, self.min_score)]
        faces = _suppressed(sorted(found, key=_rank))
        refined = [_refined(rgb, face) for face in faces[:MAX_REFINED]]
        return sorted(refined + faces[MAX_REFINED:], key=_rank)


def align(rgb: Pixels, points: Points, size: int = FACE_SIZE) -> Pixels:
    """The face at ``points``, on the template; (size, size, 3) uint8. See `align_face`."""
    return align_face(rgb, points, size).rgb


def align_face(rgb: Pixels, points: Points, size: int = FACE_SIZE) -> AlignedFace:
    """The face at ``points``, moved onto the template by a least-squares similarity.

    Photographs much larger than the result are first reduced by area averaging, so that nothing
    aliases. What lies outside the photograph is black, as in the common training sets.

    Args:
        rgb: the photograph, (H, W, 3) uint8.
        points: five landmarks in it, (5, 2).
        size: side of the result, in pixels.

    Raises:
        Unusable: the landmarks lie on one spot or are not finite.
    """
    matrix = similarity(points, TEMPLATE * (size / FACE_SIZE))
    moved = apply(matrix, points)
    reduction = int(1.0 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if reduction >= 2:
        rgb, back = _reduced(rgb, matrix, size, reduction)
        matrix = (_homogeneous(matrix) @ _homogeneous(back))[:2]
    return AlignedFace(warped(rgb, matrix, size), moved)


def warped(rgb: Pixels, matrix: npt.NDArray[np.float64], size: int = FACE_SIZE) -> Pixels:
    """A photograph moved by a (2, 3) matrix, bilinearly; (size, size, 3), black outside of it."""
    moved = cv2.warpAffine(rgb, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(moved, dtype=np.uint8)


def resized(rgb: Pixels, size: int = FACE_SIZE) -> Pixels:
    """A square picture, taken for an aligned face, at ``size`` x ``size``.

    Raises:
        Unusable: it is not square.
    """
    height, width = rgb.shape[:2]
    if height != width:
        raise Unusable(f"{width}x{height} pixels: an aligned face is square")
    if height == size:
        return rgb
    method = cv2.INTER_AREA if height > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=method), dtype=np.uint8)


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


def _scales(rgb: Pixels) -> list[float]:
    """The one or two enlargements at which a photograph is searched."""
    longest = max(rgb.shape[:2])
    coarse, fine = (min(side / longest, MAX_ENLARGEMENT) for side in (COARSE_SIDE, FINE_SIDE))
    # A small crop is not enlarged to the fine size: there is nothing more in it to be found.
    fine = min(fine, max(1.0, coarse))
    return [coarse] if fine < 1.25 * coarse else [coarse, fine]


def _find(rgb: Pixels, scale: float, min_score: float) -> Iterator[Face]:
    """Finds in one resized copy, in the coordinates of ``rgb``."""
    h, w = rgb.shape[:2]
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    bgr = np.ascontiguousarray(cv2.resize(rgb, size, interpolation=how)[:, :, ::-1])
    per_x, per_y = w / size[0], h / size[1]
    scores, boxes, points = libfacedetection.detect(bgr)
    for score, (x, y, bw, bh), five in zip(scores, boxes, points, strict=True):
        if score < 100 * min_score or bw <= 0 or bh <= 0:
            continue
        box = np.array([x * per_x, y * per_y, (x + bw) * per_x, (y + bh) * per_y], np.float32)
        # Pixel centres: position p of the copy lies at (p + 0.5) * per - 0.5 of the original.
        xy = (five.reshape(5, 2) + 0.5) * np.array([per_x, per_y]) - 0.5
        yield Face(box, xy.astype(np.float32), float(score) / 100)


def _rank(face: Face) -> tuple[float, ...]:
    """Sort key: surest, then largest, then from left to right and top to bottom."""
    return (-face.score, -face.side, *map(float, face.box[:2]))


def _suppressed(faces: list[Face]) -> list[Face]:
    """Greedy non-maximum suppression; ``faces`` come surest first."""
    kept: list[Face] = []
    for face in faces:
        if all(not _same(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _same(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Whether two boxes are one face: they overlap, or one lies mostly inside the other."""
    wh = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(max(wh[0], 0) * max(wh[1], 0))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared > MIN_OVERLAP * (sum(areas) - shared) or shared > 0.7 * min(areas)


def _refined(rgb: Pixels, face: Face) -> Face:
    """The same face with points taken from a copy where it is `REFINED_FACE` pixels tall."""
    h, w = rgb.shape[:2]
    margin = face.side / 2
    left, top = (max(0, int(v - margin)) for v in face.box[:2])
    right, bottom = min(w, int(face.box[2] + margin)), min(h, int(face.box[3] + margin))
    if right - left < 2 or bottom - top < 2:
        return face
    scale = min(REFINED_FACE / face.side, MAX_ENLARGEMENT)
    shift = np.array([left, top], np.float32)
    for again in sorted(_find(rgb[top:bottom, left:right], scale, 0.5), key=_rank):
        moved = replace(again, box=again.box + np.tile(shift, 2), points=again.points + shift)
        if _same(moved.box, face.box):
            return replace(moved, score=face.score)
    return face


def _reduced(
    rgb: Pixels, matrix: npt.NDArray[np.float64], size: int, factor: int
) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """The part of ``rgb`` that the warp needs, ``factor`` times smaller, and the way back.

    Returns:
        the reduced part, and the (2, 3) matrix from its coordinates to those of ``rgb``.
    """
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
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
