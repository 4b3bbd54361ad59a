"""`glasses`: frames taken off where they are found, or put on."""

from __future__ import annotations

import cv2
import numpy as np

from distill.data.faces import AlignedFace
from distill.data.second.canvas import (
    LUMA,
    Colour,
    Floats,
    Frame,
    blend,
    blurred,
    finished,
    floats,
    skin_colour,
)
from distill.data.second.frame_finder import FoundFrames, find_frames
from distill.data.second.frames import band, draw_frames
from distill.data.second.options import SecondOptions

MAX_TURN = 0.25
"""Heads turned further are not searched for frames (see `Frame.turn`)."""
RIM_REACH, DARK_REACH = 0.24, 0.15
"""Width of the strip along the fitted rim in which pixels may be frame, in eye distances; the
second where the rim is as dark as brows and lashes, which a wide strip would take along."""
DARK_RIM = 0.5
"""A rim darker than this share of the skin is as dark as brows."""
CORE = 0.04
"""Width of the strip along the fitted lower rim that shows the rim's colour, in eye distances."""
EVIDENCE = 0.15
"""Evidence (see `FoundFrames`) above which a pixel of the strip may count as frame."""
RIM_SHARE = 0.40
"""How far from the skin's to the rim's colour a pixel must lie to count as frame."""


def glasses(
    face: AlignedFace, rng: np.random.Generator, other: AlignedFace | None, options: SecondOptions
) -> tuple[AlignedFace, str]:
    """Removes or draws frames, as `SecondOptions.glasses` says; ``other`` is not used.

    Dark lenses are not removed: what is behind them is not in the photo.
    """
    frame = Frame(face)
    if options.glasses != "draw":
        seen = find_frames(frame) if abs(frame.turn) <= MAX_TURN else None
        if seen is not None and seen.found and not seen.dark:
            return AlignedFace(finished(removed(frame, seen)), face.points), "frames removed"
        if options.glasses == "remove":
            return face, "sunglasses left" if seen and seen.found else "no frames found"
    drawn = draw_frames(frame, rng, dark_lenses=bool(rng.random() < options.sunglasses))
    return AlignedFace(finished(drawn.rgb), face.points), f"drawn {drawn.how}"


def removed(frame: Frame, seen: FoundFrames) -> Floats:
    """The face without its frames: their pixels filled in from around them.

    Telea, "An image inpainting technique based on the fast marching method", 2004, and then the
    photo's own grain.

    Returns:
        (size, size, 3) float32.
    """
    mask = frame_mask(frame, seen)
    radius = max(2, round(0.10 * frame.unit))
    filled = cv2.inpaint(frame.face.rgb, (mask > 0.5).astype(np.uint8), radius, cv2.INPAINT_TELEA)
    soft = np.maximum(blurred(mask, 0.6), mask)
    return blend(floats(frame.face.rgb), floats(np.asarray(filled, np.uint8)), soft)


def frame_mask(frame: Frame, seen: FoundFrames) -> Floats:
    """Which pixels are taken for frame: 1 or 0, (size, size)."""
    skin, rim = skin_colour(frame), _rim_colour(frame, seen)
    reach = DARK_REACH if rim @ LUMA < DARK_RIM * (skin @ LUMA) else RIM_REACH
    lines = [(seen.lens.outline(side), reach, True) for side in (-1, 1)]
    lines += [(_arm(seen, side), 0.20, False) for side in (-1, 1)]
    lines += [(_bridge(seen), RIM_REACH, False)]
    strips = [frame.line(path, width, closed=closed) for path, width, closed in lines]
    near = (np.maximum.reduce(strips) > 0.5) & (seen.evidence > EVIDENCE)
    chosen = near & (_share(floats(frame.face.rgb), skin, rim) > RIM_SHARE)
    grown = cv2.dilate(chosen.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return np.asarray(grown * (band(frame) > 0.99), np.float32)


def _rim_colour(frame: Frame, seen: FoundFrames) -> Colour:
    """Median colour of the surest pixels of the lower rims."""
    core = np.maximum.reduce([frame.line(_lower(seen, s), CORE, closed=False) for s in (-1, 1)])
    inside = core > min(0.4, float(core.max()) * 0.9)
    sure = inside & (seen.evidence >= np.quantile(seen.evidence[inside], 0.6))
    return np.asarray(np.median(floats(frame.face.rgb)[sure], axis=0), np.float32)


def _share(rgb: Floats, skin: Colour, rim: Colour) -> Floats:
    """Where each colour lies on the way from skin (0) to rim (1); 0 far from that way."""
    way = rim - skin
    length = float(way @ way) + 1e-3
    share = (rgb - skin) @ way / length
    aside = np.linalg.norm(rgb - skin - share[..., None] * way, axis=2) / np.sqrt(length)
    return np.asarray(share * (aside < 0.8), np.float32)


def _lower(seen: FoundFrames, side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The lower half of a rim, from end to end."""
    outline = seen.lens.outline(side)
    return outline[1 : len(outline) // 2]


def _bridge(seen: FoundFrames) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The middle of the frame, between the lenses."""
    inner = seen.lens.apart - seen.lens.width
    height = seen.lens.drop - 0.35 * seen.lens.height
    return np.array([[-inner - 0.04, height], [0.0, height - 0.04], [inner + 0.04, height]])


def _arm(seen: FoundFrames, side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """From hinge to ear."""
    x = seen.lens.apart + seen.lens.width
    y = seen.lens.drop - 0.40 * seen.lens.height
    return np.array([[side * (x - 0.02), y], [side * 1.15, y + 0.04]])
