"""What the processings share: face coordinates, soft masks, colours of a photo, blending.

Everything here works on float32 RGB in [0, 255]; `finished` makes the uint8 result. Shapes are
drawn `FINER` times larger and reduced by area, so that thin lines are smooth at 112x112.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from distill.data.faces import FACE_SIZE, AlignedFace
from distill.data.images import Pixels

Floats = npt.NDArray[np.float32]
Colour = npt.NDArray[np.float32]
"""(3,) float32 RGB in [0, 255]."""

FINER = 4
"""Shapes are drawn on a canvas this many times larger."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class Frame:
    """Coordinates that move with a face: the origin between the eyes, x to the right eye, y down.

    One unit is the distance between the eyes; a turned head, whose eyes are close together, is
    measured by the distance from eyes to mouth instead.

    Attributes:
        face: the aligned face.
    """

    face: AlignedFace

    @property
    def size(self) -> int:
        """Side of the image, in pixels."""
        return int(self.face.rgb.shape[0])

    @cached_property
    def origin(self) -> npt.NDArray[np.float64]:
        """Point between the eyes, in pixels."""
        return np.asarray(self.face.points[:2].mean(axis=0), np.float64)

    @cached_property
    def axes(self) -> npt.NDArray[np.float64]:
        """(2, 2): the x and the y axis as rows, each one unit long, in pixels."""
        eyes = self.face.points.astype(np.float64)
        across = eyes[1] - eyes[0]
        down = eyes[3:].mean(axis=0) - self.origin
        # Template: 35.2 pixels between the eyes, 40.7 from there to the mouth.
        unit = max(float(np.hypot(*across)), 0.8 * float(np.hypot(*down)) * 35.2 / 40.7)
        unit = float(np.clip(unit, 0.15 * self.size, 0.6 * self.size))
        turn = _direction(across, down)
        return unit * np.array([turn, [-turn[1], turn[0]]])

    @property
    def unit(self) -> float:
        """Distance between the eyes, in pixels."""
        return float(np.hypot(*self.axes[0]))

    @cached_property
    def turn(self) -> float:
        """Place of the nose's tip in x: 0 for a frontal face, about +-0.5 for a profile."""
        nose = (self.face.points[2].astype(np.float64) - self.origin) @ np.linalg.inv(self.axes)
        return float(np.clip(nose[0], -1, 1))

    @property
    def eyes_apart(self) -> float:
        """Seen distance of the eyes in units: 1 unless the head is turned."""
        return float(np.hypot(*(self.face.points[1] - self.face.points[0]))) / self.unit

    @cached_property
    def head(self) -> tuple[Floats, Floats]:
        """`grid` with x stretched, so that a turned head has the outline of a frontal one."""
        x, y = self.grid
        left, right = self._sides()
        return np.where(x < 0, x / left, x / right).astype(np.float32), y

    def from_head(self, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(..., 2) coordinates as of `head` to face coordinates."""
        left, right = self._sides()
        x = xy[..., 0]
        return np.stack([np.where(x < 0, x * left, x * right), xy[..., 1]], axis=-1)

    def _sides(self) -> tuple[float, float]:
        """How wide the left and the right half of the head are seen; 1 for a frontal face."""
        away = max(0.0, abs(self.turn) - 0.12)
        near, far = max(0.35, 1 - 1.3 * away), 1 + 0.4 * away
        return (far, near) if self.turn > 0 else (near, far)

    def pixels(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 2) face coordinates to pixels."""
        return np.asarray(xy, np.float64) @ self.axes + self.origin

    @cached_property
    def grid(self) -> tuple[Floats, Floats]:
        """Face coordinates x and y of every pixel, each (size, size)."""
        rows, columns = np.mgrid[: self.size, : self.size].astype(np.float64)
        offset = np.stack([columns, rows], axis=-1) - self.origin
        local = offset @ np.linalg.inv(self.axes)
        return local[..., 0].astype(np.float32), local[..., 1].astype(np.float32)

    def shape(self, *outlines: npt.NDArray[np.float64]) -> Floats:
        """Coverage in [0, 1] of filled outlines given in face coordinates; (size, size)."""
        canvas = np.zeros((self.size * FINER,) * 2, np.uint8)
        for outline in outlines:
            cv2.fillPoly(canvas, [self._fine(outline)], 255, cv2.LINE_AA, _SHIFT)
        return self.reduced(canvas)

    def line(self, outline: npt.NDArray[np.float64], width: float, *, closed: bool) -> Floats:
        """Coverage in [0, 1] of a line ``width`` units wide; (size, size)."""
        canvas = np.zeros((self.size * FINER,) * 2, np.uint8)
        thick = max(1, round(width * self.unit * FINER))
        cv2.polylines(canvas, [self._fine(outline)], closed, 255, thick, cv2.LINE_AA, _SHIFT)
        return self.reduced(canvas)

    def fine(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 2) face coordinates to pixels of the finer canvas."""
        return (self.pixels(xy) + 0.5) * FINER - 0.5

    def _fine(self, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """The same in OpenCV's fixed-point numbers."""
        return np.rint(self.fine(xy) * (1 << _SHIFT)).astype(np.int32)

    def reduced(self, canvas: npt.NDArray[np.uint8]) -> Floats:
        """A finer canvas of 0 .. 255 as coverage in [0, 1] at the face's own size."""
        small = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32) / np.float32(255)


_SHIFT = 4


def _direction(
    across: npt.NDArray[np.float64], down: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Unit vector along the eyes; of a profile, at right angles to the line from eyes to mouth."""
    if np.hypot(*across) < 0.3 * np.hypot(*down):
        across = np.array([down[1], -down[0]])
    length = float(np.hypot(*across))
    return across / length if length > 1e-6 else np.array([1.0, 0.0])


def floats(rgb: Pixels) -> Floats:
    """uint8 to float32, same range."""
    return rgb.astype(np.float32)


def finished(rgb: Floats) -> Pixels:
    """float32 to uint8, rounded and clipped."""
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def blend(below: Floats, above: Floats | Colour, coverage: Floats) -> Floats:
    """``above`` over ``below``; coverage (H, W) in [0, 1]."""
    alpha = coverage[..., None]
    return below * (1 - alpha) + above * alpha


def smooth_step(values: Floats, start: float, end: float) -> Floats:
    """0 at ``start``, 1 at ``end``, with level ends; either may be the larger."""
    t = np.clip((values - start) / (end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def smooth_noise(rng: np.random.Generator, size: int, cell: float) -> Floats:
    """Random hills about ``cell`` pixels wide, mean 0, deviation about 1; (size, size)."""
    few = max(2, round(size / cell) + 1)
    hills = rng.standard_normal((few, few)).astype(np.float32)
    return np.asarray(cv2.resize(hills, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def blurred(values: Floats, sigma: float) -> Floats:
    """Gaussian blur that mirrors at the border; sigma in pixels."""
    return np.asarray(
        cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def brightness(rgb: Floats) -> Floats:
    """(H, W, 3) to (H, W)."""
    return np.asarray(rgb @ LUMA, np.float32)


def skin_colour(frame: Frame) -> Colour:
    """Median colour of the cheeks and the bridge of the nose."""
    x, y = frame.grid
    cheeks = (np.abs(np.abs(x) - 0.45) < 0.18) & (np.abs(y - 0.5) < 0.15)
    bridge = (np.abs(x) < 0.12) & (np.abs(y - 0.25) < 0.15)
    chosen = floats(frame.face.rgb)[cheeks | bridge]
    if len(chosen) == 0:
        return np.array([190, 150, 130], np.float32)
    return np.asarray(np.median(chosen, axis=0), np.float32)


def grain(frame: Frame) -> float:
    """Deviation of the finest detail on the cheeks, in grey levels: pores and noise."""
    x, y = frame.grid
    cheeks = (np.abs(np.abs(x) - 0.45) < 0.25) & (np.abs(y - 0.5) < 0.2)
    luma = brightness(floats(frame.face.rgb))
    detail = (luma - blurred(luma, 1.2 * frame.size / FACE_SIZE))[cheeks]
    return float(np.median(np.abs(detail)) * 1.48) if detail.size else 1.0
