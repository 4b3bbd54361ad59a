"""Finds spectacle frames on an aligned face.

A deformable template: the rims of a few hundred lens shapes are laid over maps of what is thin and
darker than its surroundings, thin and brighter, or of another colour than the skin around it. A
rim that is there lights up along its whole lower half on BOTH sides, while skin just inside and
outside it does not. The best fit of each map, the line across the bridge of the nose and the
lines under the eyes go into a logistic regression of eight numbers.

How well it does, and on what that was measured, is in docs/second_images.md
(`benchmarks/fit_frame_finder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from distill.arrays import Floats
from distill.data.faces import AlignedFace
from distill.data.images import Pixels
from distill.data.second.pixels import glasses
from distill.data.second.pixels.face import Plane, plane_of
from distill.data.second.pixels.lens import APART, CANDIDATES, DROP, HEIGHT, SQUARE, WIDTH
from distill.data.second.pixels.rings import best_ring

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness (ITU-R BT.601)."""
MAX_TURN = 0.25
"""Heads turned further are not searched (see `Plane.turn`)."""
PER_UNIT = 40
"""Pixels per eye distance of the patch that is searched."""
LEFT, TOP, RIGHT, BOTTOM = -1.3, -0.75, 1.3, 0.85
"""The patch, in face coordinates."""
POINTS = 32
"""Points round a lens."""
SKIN_SHARE = 0.22
"""A line this share of the skin's brightness darker or brighter than the skin counts in full."""
DARK_LENS = 0.60
"""Eye regions darker than this share of the skin are hidden by sunglasses (measured on the same
faces: 1% of the bare ones are darker, 98% of those with drawn sunglasses)."""
THRESHOLD = 0.5
"""Probability above which frames count as found."""
GREY = 2.5
"""Mean chroma (CIE Lab) below which a photograph counts as grey."""


@dataclass(frozen=True)
class _Regression:
    """Logistic regression; see `benchmarks/fit_frame_finder.py`."""

    centre: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def probability(self, features: npt.NDArray[np.float64]) -> float:
        logit = float((features - np.array(self.centre)) @ np.array(self.weights)) + self.bias
        return float(1 / (1 + np.exp(-np.clip(logit, -50, 50))))


_COLOUR = _Regression(
    centre=(0.399, 0.284, 0.304, 0.287, 0.809, 0.197, 0.504, 0.576),
    weights=(-4.83, 3.07, 29.78, 4.38, 4.91, -1.62, 4.07, 0.18),
    bias=5.453,
)
_GREY = _Regression(
    centre=(0.398, 0.284, 0.0, 0.278, 0.809, 0.197, 0.504, 0.576),
    weights=(-6.04, 9.93, 0.0, 10.76, 5.09, -2.31, 4.99, 0.02),
    bias=2.229,
)


class FoundFrames(NamedTuple):
    """What the finder thinks of a face.

    Attributes:
        probability: of frames, in [0, 1].
        dark: whether the lenses hide the eyes.
    """

    probability: float
    dark: bool

    @property
    def found(self) -> bool:
        """Whether there are frames, or lenses that hide the eyes."""
        return self.probability > THRESHOLD or self.dark


def find_frames(face: AlignedFace) -> FoundFrames:
    """Looks for frames on a face that is seen from the front (see `Plane.turn`)."""
    patch = _patch(face)
    features = _features(patch, _evidence(patch))
    regression = _GREY if _is_grey(patch) else _COLOUR
    return FoundFrames(
        probability=regression.probability(features),
        dark=_eye_brightness(patch) < DARK_LENS,
    )


def worn_of(face: AlignedFace) -> int:
    """What `find_frames` says, in one number for compiled code; 0 where a head is turned far."""
    if abs(plane(face).turn) > MAX_TURN:
        return 0
    seen = find_frames(face)
    if not seen.found:
        return 0
    return glasses.FOUND | glasses.DARK * seen.dark


def plane(face: AlignedFace) -> Plane:
    """The coordinates of a face."""
    found: Plane = plane_of(np.array(face.points, np.float32, order="C"), face.rgb.shape[0])
    return found


def features_of(face: AlignedFace) -> npt.NDArray[np.float64]:
    """The eight numbers that the regression sees; for fitting it."""
    patch = _patch(face)
    return _features(patch, _evidence(patch))


def _patch(face: AlignedFace) -> Pixels:
    """The band about the eyes, upright and at a fixed scale."""
    p = plane(face)
    across, down = np.array([p.ux, p.uy]), np.array([-p.uy, p.ux])
    corner = np.array([p.ox, p.oy]) + LEFT * across + TOP * down
    matrix = np.column_stack([across / PER_UNIT, down / PER_UNIT, corner])
    size = (round((RIGHT - LEFT) * PER_UNIT), round((BOTTOM - TOP) * PER_UNIT))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(face.rgb, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.GaussianBlur(warped, (0, 0), 0.8), np.uint8)


def _skin_brightness(patch: Pixels) -> float:
    """Brightness of the cheeks, in grey levels; the unit of evidence."""
    rows = slice(round((0.50 - TOP) * PER_UNIT), round((0.65 - TOP) * PER_UNIT))
    luma = patch[rows].astype(np.float32) @ LUMA
    return max(float(np.median(luma)), 30.0)


def _evidence(patch: Pixels) -> Floats:
    """(3, h, w) in [0, 1]: thin and darker, thin and brighter, of another colour."""
    luma = patch.astype(np.float32) @ LUMA
    round9 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    dark = cv2.morphologyEx(luma, cv2.MORPH_BLACKHAT, round9)
    light = cv2.morphologyEx(luma, cv2.MORPH_TOPHAT, round9)
    lab, around = (
        cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 1:].astype(np.float32)
        for rgb in (patch, cv2.medianBlur(patch, 13))
    )
    unit = SKIN_SHARE * _skin_brightness(patch)
    # 1 step of Lab's a and b is as telling as 2.5 grey levels at a brightness of 150.
    hue = np.linalg.norm(lab - around, axis=2) * 2.5 / (SKIN_SHARE * 150)
    return np.asarray(np.clip(np.stack([dark / unit, light / unit, hue]), 0, 1), np.float32)


def _is_grey(patch: Pixels) -> bool:
    """Whether there is no colour to tell rims from skin."""
    lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB)[..., 1:].astype(np.float32) - 128
    return float(np.linalg.norm(lab, axis=2).mean()) < GREY


def _features(patch: Pixels, maps: Floats) -> npt.NDArray[np.float64]:
    """The eight numbers."""
    rings = [_ring_score(m) for m in (*maps, maps.max(axis=0))]
    return np.array([*rings, *_across(patch)])


def _ring_score(evidence: Floats) -> float:
    """How well the best candidate's rims are drawn in ``evidence``, (h, w)."""
    near = cv2.dilate(evidence, np.ones((3, 3), np.uint8))
    return float(best_ring(near.reshape(-1), *_rings()))


def _across(patch: Pixels) -> list[float]:
    """Strength of a dark and a bright level line over the nose, and the same below both eyes."""
    luma = patch.astype(np.float32) @ LUMA
    unit = SKIN_SHARE * _skin_brightness(patch)
    upright = np.ones((9, 1), np.uint8)
    lines = [
        np.clip(cv2.morphologyEx(luma, how, upright) / unit, 0, 1)
        for how in (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT)
    ]
    bridge = [_level(line, (-0.08, 0.08), (-0.35, 0.40)) for line in lines]
    below = [
        min(_level(line, side, (0.20, 0.53)) for side in ((-0.64, -0.40), (0.40, 0.64)))
        for line in lines
    ]
    return bridge + below


def _level(line: Floats, x: tuple[float, float], y: tuple[float, float]) -> float:
    """Strongest row of a map within a box given in face coordinates."""
    columns = slice(*(round((v - LEFT) * PER_UNIT) for v in x))
    rows = slice(*(round((v - TOP) * PER_UNIT) for v in y))
    return float(line[rows, columns].mean(axis=1).max())


def _eye_brightness(patch: Pixels) -> float:
    """Upper quartile of the brightness about the eyes, as a share of the skin's."""
    luma = patch[_about_eyes(patch.shape[:2])].astype(np.float32) @ LUMA
    return float(np.percentile(luma, 75)) / _skin_brightness(patch)


@lru_cache(maxsize=1)
def _about_eyes(shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Two ellipses, on a patch of this height and width."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / PER_UNIT
    x, y = np.abs(columns + LEFT), rows + TOP
    return np.asarray(np.hypot((x - 0.52) / 0.24, (y - 0.10) / 0.16) < 1)


Places = npt.NDArray[np.intp]


@lru_cache(maxsize=1)
def _rings() -> tuple[Places, Places, Places]:
    """Pixels on, inside and outside the lower rims of all candidates; (K, 2, P) each."""
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    lower = np.sin(angle) > -0.35  # brows lie along the upper half
    on, inside, outside = (
        np.array([[_outline(lens, share, side)[lower] for side in (-1, 1)] for lens in CANDIDATES])
        for share in (1.0, 0.78, 1.22)
    )
    return _places(on), _places(inside), _places(outside)


def _outline(lens: npt.NDArray[np.float64], share: float, side: int) -> npt.NDArray[np.float64]:
    """`POINTS` places on the outline of a lens, made smaller or larger; side -1 is the left eye."""
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    power = 2 / lens[SQUARE]
    x = share * lens[WIDTH] * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = share * lens[HEIGHT] * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    return np.stack([side * (x + lens[APART]), y + lens[DROP]], axis=1)


def _places(outlines: npt.NDArray[np.float64]) -> Places:
    """Face coordinates to numbers of the patch's pixels, kept inside it."""
    pixels = np.rint((outlines - (LEFT, TOP)) * PER_UNIT).astype(np.intp)
    width, height = round((RIGHT - LEFT) * PER_UNIT), round((BOTTOM - TOP) * PER_UNIT)
    rows = np.clip(pixels[..., 1], 0, height - 1)
    return np.asarray(rows * width + np.clip(pixels[..., 0], 0, width - 1))
