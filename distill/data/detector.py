"""Faces in photographs, found by libfacedetection.

libfacedetection (by Shiqi Yu, BSD; its small model is inside) gives a box and five points in whole
pixels. A photograph is searched in a small copy, and in a large one where the small one does not
show the face that is asked for. Its points depend on how large a face is and where the picture is
cut, by several percent of the face: so a face is looked at in several sizes, each look cut by the
find before, and the means of the points are taken (figures in docs/data.md).

It runs on OpenMP threads: worker processes that detect must be spawned, not forked, and should
be started with ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from distill.data import libfacedetection
from distill.data.faces import Points
from distill.data.images import Pixels

COARSE_SIDE, FINE_SIDE = 320, 960
"""Longest side, in pixels, of the two copies of a photograph that are searched."""
SEEN_SHARE = 0.15
"""A face of this share of the photograph's longest side is 48 pixels in the small copy, which shows
those of 24 reliably: what it does not show is less prominent."""
MAX_ENLARGEMENT = 3.0
"""Small crops are enlarged by at most this before the search."""
LOOK_SIDES = (72.0, 88.0, 104.0, 120.0)
"""Longest sides, in pixels, that a face is brought to, one look after another."""
LOOK_SCORE = 0.5
"""Confidence that a find needs in a look at a face that was found before."""
MAX_LOOKED_AT = 32
"""Faces of one photograph that are looked at again (by falling score)."""
MIN_OVERLAP = 0.35
"""Two finds that overlap by more than this (intersection over union) are one face."""


@dataclass(frozen=True)
class Face:
    """A face in a photograph.

    Attributes:
        box: left, top, right, bottom in pixels, (4,) float32; may reach outside the photograph.
        points: its five landmarks in the photograph's pixels.
        score: the detector's confidence in [0, 1].
    """

    box: npt.NDArray[np.float32]
    points: Points
    score: float

    @property
    def side(self) -> float:
        """Longest side of the box, in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    def times(self, factor: int) -> Face:
        """The same face in a picture that is ``factor`` times larger."""
        # Pixel centres: position p of the copy lies at (p + 0.5) * factor - 0.5 of the original.
        points = (self.points + np.float32(0.5)) * np.float32(factor) - np.float32(0.5)
        return Face(self.box * np.float32(factor), points, self.score)


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
        small, factor = _halved(rgb)
        *_, faces = self._searched(small)
        near = [_looked_at(rgb, small, factor, face) for face in faces[:MAX_LOOKED_AT]]
        far = [face.times(factor) for face in faces[MAX_LOOKED_AT:]]
        return sorted(near + far, key=_rank)

    def foremost(self, rgb: Pixels) -> tuple[Face, int] | None:
        """The most prominent face of a photograph, and how many were found until it was sure.

        Faces that are much smaller may not be among those; `detect` finds them, in more time.

        Args:
            rgb: (H, W, 3) uint8 of any size.
        """
        small, factor = _halved(rgb)
        best: Face | None = None
        for faces in self._searched(small):
            best = max(faces, key=lambda face: prominence(face, small), default=None)
            if best and prominence(best, small) >= SEEN_SHARE * max(small.shape[:2]):
                break
        return (_looked_at(rgb, small, factor, best), len(faces)) if best else None

    def _searched(self, rgb: Pixels) -> Iterator[list[Face]]:
        """Finds in the small copy, then those in both, each face once and surest first."""
        found: list[Face] = []
        for scale in _scales(rgb):
            found += _find(rgb, scale, self.min_score)
            yield _each_once(found)


def prominence(face: Face, rgb: Pixels) -> float:
    """Side of the face in pixels, halved at a corner of the photograph and whole at its centre."""
    middle = np.array(rgb.shape[1::-1]) / 2
    centre = (face.box[:2] + face.box[2:]) / 2
    distance = float(np.linalg.norm(centre - middle) / np.linalg.norm(middle))
    return face.side * (1 - 0.5 * min(distance, 1.0))


def _halved(rgb: Pixels) -> tuple[Pixels, int]:
    """The photograph at half its size, as often as what is searched is not enlarged by it; and how
    many times smaller that is. Halves are quick, and all other copies are made from the last.
    """
    factor = 1
    while max(rgb.shape[:2]) >= 2 * FINE_SIDE and min(rgb.shape[:2]) >= 2:
        h, w = (length // 2 for length in rgb.shape[:2])
        half = cv2.resize(rgb[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
        rgb, factor = np.asarray(half, np.uint8), 2 * factor
    return rgb, factor


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
        xy = (five.reshape(5, 2) + 0.5) * np.array([per_x, per_y]) - 0.5
        yield Face(box, xy.astype(np.float32), float(score) / 100)


def _rank(face: Face) -> tuple[float, ...]:
    """Sort key: surest, then largest, then from left to right and top to bottom."""
    return (-face.score, -face.side, *map(float, face.box[:2]))


def _each_once(finds: Iterable[Face]) -> list[Face]:
    """The surest find of each face, surest first: greedy non-maximum suppression."""
    kept: list[Face] = []
    for face in sorted(finds, key=_rank):
        if all(not _same(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _same(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Whether two boxes are one face: they overlap, or one lies mostly inside the other."""
    wh = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(max(wh[0], 0) * max(wh[1], 0))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared > MIN_OVERLAP * (sum(areas) - shared) or shared > 0.7 * min(areas)


def _looked_at(rgb: Pixels, small: Pixels, factor: int, face: Face) -> Face:
    """A face of the ``small`` photograph in the pixels of ``rgb``, ``factor`` times larger, with
    the means of the points that it has in copies of `LOOK_SIDES`.
    """
    if face.side >= max(LOOK_SIDES):  # else the small photograph shows less than is looked at
        return _mean_of_looks(small, face).times(factor)
    return _mean_of_looks(rgb, face.times(factor))


def _mean_of_looks(rgb: Pixels, face: Face) -> Face:
    seen: list[Face] = []
    for side in LOOK_SIDES:
        again = _look(rgb, seen[-1] if seen else face, side)
        seen += [again] if again else []
    if not seen:
        return face
    points = np.asarray(np.mean([look.points for look in seen], axis=0), np.float32)
    return Face(seen[-1].box, points, face.score)


def _look(rgb: Pixels, face: Face, side: float) -> Face | None:
    """The same face in a copy of its surroundings where it is ``side`` pixels tall."""
    h, w = rgb.shape[:2]
    margin = face.side / 2
    left, top = (max(0, int(v - margin)) for v in face.box[:2])
    right, bottom = min(w, int(face.box[2] + margin)), min(h, int(face.box[3] + margin))
    if right - left < 2 or bottom - top < 2:
        return None
    scale = min(side / face.side, MAX_ENLARGEMENT)
    shift = np.array([left, top], np.float32)
    for again in sorted(_find(rgb[top:bottom, left:right], scale, LOOK_SCORE), key=_rank):
        moved = replace(again, box=again.box + np.tile(shift, 2), points=again.points + shift)
        if _same(moved.box, face.box):
            return moved
    return None
