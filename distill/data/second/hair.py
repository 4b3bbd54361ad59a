"""A fringe of drawn strands in the colour of the photo's own hair."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from distill.data.second.canvas import (
    FINER,
    Colour,
    Floats,
    Frame,
    brightness,
    floats,
    skin_colour,
    smooth_step,
)

STRANDS = 420
"""Drawn strands; with the darker hair under them they close the fringe."""
NATURAL: tuple[tuple[int, int, int], ...] = (
    (28, 24, 22),
    (58, 42, 32),
    (96, 68, 46),
    (150, 116, 74),
    (132, 128, 124),
    (112, 62, 38),
)
"""Black, dark brown, brown, blond, grey and red: where the photo shows no hair."""
CUTS = ("straight", "swept left", "swept right", "curtain", "wispy")
"""Shapes of the fringe's lower edge."""


def fringe(frame: Frame, line: float, rng: np.random.Generator) -> tuple[Floats, Floats, str]:
    """Hair that falls from the top of the picture to ``line`` (y in face coordinates).

    Returns:
        colour (size, size, 3), coverage (size, size), and how it was made.
    """
    cut = CUTS[int(rng.integers(len(CUTS)))]
    colour, source = hair_colour(frame, rng)
    shade, coverage = _strands(frame, line, cut, rng)
    x, y = frame.grid
    ring = 1 + 0.30 * np.exp(-(((y + 1.0 + 0.15 * x * x) / 0.16) ** 2))
    tone = (0.40 + 1.05 * shade) * ring
    # Light hair keeps its hue in the lights; black hair shines bluish grey.
    lit = colour * tone[..., None] + 10 * np.clip(tone - 1, 0, None)[..., None]
    return np.asarray(lit, np.float32), coverage, f"fringe {cut}, {source} hair"


def hair_colour(frame: Frame, rng: np.random.Generator) -> tuple[Colour, str]:
    """Median colour of what is darker than skin at the top of the head, else a natural one."""
    x, y = frame.head
    rgb = floats(frame.face.rgb)
    top = rgb[(np.abs(x) < 0.8) & (y < -0.95) & (y > -1.6)]
    dark = top[brightness(top) < 0.72 * brightness(skin_colour(frame))]
    # Black bars at the edge of a photo are not hair.
    dark = dark[dark.max(axis=1) > 8] if len(dark) else dark
    if len(dark) > max(20, 0.06 * len(top)):
        return np.asarray(np.clip(np.median(dark, axis=0), 16, 230), np.float32), "own"
    return np.array(NATURAL[int(rng.integers(len(NATURAL)))], np.float32), "natural"


def _edge(cut: str, x: npt.NDArray[np.float64], line: float) -> npt.NDArray[np.float64]:
    """Height y of the fringe's lower edge at x, in face coordinates; never below ``line``."""
    match cut:
        case "swept left":
            rise = 0.30 * np.clip(x + 0.9, 0, 2) ** 1.3 * 0.55
        case "swept right":
            rise = 0.30 * np.clip(0.9 - x, 0, 2) ** 1.3 * 0.55
        case "curtain":
            rise = 0.50 * np.exp(-((x / 0.35) ** 2))
        case "wispy":
            rise = 0.10 + 0.08 * np.cos(5 * x)
        case _:
            rise = 0.04 + 0.03 * np.cos(3 * x)
    return np.minimum(line - 0.03 - rise, line)


def _strands(
    frame: Frame, line: float, cut: str, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Brightness in [0, 1] and coverage in [0, 1] of the fringe, both (size, size)."""
    side = frame.size * FINER
    shade = np.zeros((side, side), np.uint8)
    curves = _curves(frame, line, cut, rng)
    order = np.argsort(rng.random(len(curves)))
    for i in order:
        thick = int(rng.integers(2, 7))
        value = int(np.clip(255 * rng.beta(2.2, 2.6), 10, 255))
        points = [np.rint(curves[i] * 16).astype(np.int32)]
        cv2.polylines(shade, points, False, value, thick, cv2.LINE_AA, 4)
    coverage = frame.reduced(np.where(shade > 0, 255, 0).astype(np.uint8))
    x, y = frame.head
    edge = _edge(cut, x.astype(np.float64), line).astype(np.float32)
    under = smooth_step(y - edge, -0.06, -0.22) * (0.97 if cut != "wispy" else 0.75)
    # Hair lies on a round head: nothing stands out at the sides.
    round_head = smooth_step(np.hypot(x / 1.18, (y - 0.1) / 2.1).astype(np.float32), 1.03, 0.95)
    covered = np.maximum(coverage, under) * round_head
    return frame.reduced(shade), covered.astype(np.float32)


def _curves(
    frame: Frame, line: float, cut: str, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Strands as (STRANDS, 9, 2) points on the finer canvas, from root to tip."""
    tip_x = rng.uniform(-1.08, 1.08, STRANDS)
    tip_y = _edge(cut, tip_x, line) - np.abs(rng.normal(0, 0.09, STRANDS))
    lean = {"swept left": 0.7, "swept right": -0.7}.get(cut, 0.0)
    toward = 0.85 * tip_x + lean
    if cut == "curtain":
        toward = 0.25 * tip_x
    root = np.stack([toward + rng.normal(0, 0.06, STRANDS), np.full(STRANDS, -1.75)], axis=1)
    tip = np.stack([tip_x, tip_y], axis=1)
    bend = np.stack([0.5 * (root[:, 0] + tip_x), np.full(STRANDS, -1.15)], axis=1)
    bend[:, 0] += 0.25 * (tip_x - toward) + rng.normal(0, 0.05, STRANDS)
    t = np.linspace(0, 1, 9)[None, :, None]
    path = (1 - t) ** 2 * root[:, None] + 2 * t * (1 - t) * bend[:, None] + t**2 * tip[:, None]
    return frame.fine(frame.from_head(path))
