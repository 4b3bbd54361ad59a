"""`blur`: what lenses, hands, small sensors and codecs do to a face."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from distill.data.faces import FACE_SIZE, AlignedFace
from distill.data.images import Pixels, encode_jpeg
from distill.data.second.options import SecondOptions

ANTIALIAS = 8
"""Kernels are drawn this many times finer and summed, so that lengths need not be whole pixels."""


def blur(
    face: AlignedFace, rng: np.random.Generator, other: AlignedFace | None, options: SecondOptions
) -> tuple[AlignedFace, str]:
    """One of Gaussian, motion, defocus, down-and-up scaling or JPEG, of a random strength.

    ``other`` is not used. Ranges are in `SecondOptions`, in pixels of a 112x112 face.
    """
    style = options.blur_styles[int(rng.integers(len(options.blur_styles)))]
    amount = rng.uniform(*getattr(options, _RANGES[style]))
    angle = rng.uniform(0, 180)
    scale = face.rgb.shape[0] / FACE_SIZE
    result: npt.NDArray[np.generic]
    match style:
        case "gaussian":
            result = cv2.GaussianBlur(
                face.rgb, (0, 0), amount * scale, borderType=cv2.BORDER_REFLECT_101
            )
        case "motion":
            result = _filtered(face.rgb, motion_kernel(amount * scale, angle))
        case "defocus":
            result = _filtered(face.rgb, disc_kernel(amount * scale))
        case "resize":
            result = _down_and_up(face.rgb, round(amount * scale))
        case "jpeg":
            encoded = encode_jpeg(face.rgb, round(amount))
            result = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    return AlignedFace(np.asarray(result, np.uint8), face.points), f"{style} {amount:.1f}"


_RANGES = {
    "gaussian": "gaussian_sigma",
    "motion": "motion_length",
    "defocus": "defocus_radius",
    "resize": "resize_side",
    "jpeg": "jpeg_quality",
}


def motion_kernel(length: float, degrees: float) -> npt.NDArray[np.float32]:
    """A straight streak ``length`` >= 1 pixels long; odd side, sum 1."""
    side = 2 * int(np.ceil(length / 2)) + 1
    fine = np.zeros((side * ANTIALIAS,) * 2, np.uint8)
    centre = side * ANTIALIAS / 2 - 0.5
    turn = np.deg2rad(degrees)
    # The pen is one pixel wide and round: its two ends add that pixel.
    half = (length - 1) / 2 * ANTIALIAS * np.array([np.cos(turn), np.sin(turn)])
    start, end = (tuple(map(round, (centre + s * half).tolist())) for s in (-1, 1))
    cv2.line(fine, start, end, 255, ANTIALIAS)
    return _kernel(fine, side)


def disc_kernel(radius: float) -> npt.NDArray[np.float32]:
    """An evenly lit disc, as an open aperture draws a point out of focus; odd side, sum 1."""
    side = 2 * int(np.ceil(radius)) + 1
    rows, columns = np.mgrid[: side * ANTIALIAS, : side * ANTIALIAS] - (side * ANTIALIAS - 1) / 2
    fine = (np.hypot(rows, columns) <= radius * ANTIALIAS).astype(np.uint8) * 255
    return _kernel(fine, side)


def _kernel(fine: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    small = cv2.resize(fine.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small / small.sum(), np.float32)


def _filtered(rgb: Pixels, kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
    return cv2.filter2D(rgb, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def _down_and_up(rgb: Pixels, side: int) -> npt.NDArray[np.generic]:
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC)
