"""Caps, beanies and hats, drawn with cloth, seams and shading above the brow line."""

from __future__ import annotations

import numpy as np

from distill.data.second.canvas import (
    Floats,
    Frame,
    brightness,
    floats,
    skin_colour,
    smooth_noise,
    smooth_step,
)

CLOTHS: dict[str, tuple[int, int, int]] = {
    "black": (34, 34, 38),
    "navy": (36, 48, 84),
    "grey": (118, 120, 124),
    "red": (150, 38, 40),
    "olive": (86, 90, 58),
    "burgundy": (96, 30, 48),
    "beige": (190, 170, 138),
    "white": (222, 222, 218),
    "denim": (72, 96, 128),
    "mustard": (186, 142, 52),
}
"""Names and colours (RGB) of the cloth."""


def worn(
    style: str, frame: Frame, line: float, rng: np.random.Generator
) -> tuple[Floats, Floats, str]:
    """A `cap`, `beanie` or `hat` that ends at ``line`` (y in face coordinates).

    Returns:
        colour (size, size, 3), coverage (size, size), and how it was made.
    """
    name = list(CLOTHS)[int(rng.integers(len(CLOTHS)))]
    cloth = np.array(CLOTHS[name], np.float32) * _exposure(frame)
    draw = {"cap": _cap, "beanie": _beanie, "hat": _hat}[style]
    shade, coverage = draw(frame, line, rng)
    noise = rng.standard_normal((frame.size,) * 2).astype(np.float32)
    colour = cloth * shade[..., None] + (1.5 * noise + 6 * np.clip(shade - 0.8, 0, 1))[..., None]
    return np.asarray(colour, np.float32), coverage, f"{name} {style}"


def _exposure(frame: Frame) -> float:
    """Cloth is as bright as the light on the face: 1 for well-lit skin."""
    light = float(brightness(floats(frame.face.rgb)).mean() + brightness(skin_colour(frame))) / 2
    return float(np.clip(light / 130, 0.65, 1.15))


def _dome(x: Floats, y: Floats, half_width: float, top: float, base: float) -> Floats:
    """Radius in a half ellipse that stands on ``base`` and reaches up to ``top``; 1 on its rim."""
    return np.asarray(np.hypot(x / half_width, (y - base) / (base - top)), np.float32)


def _round(x: Floats, half_width: float) -> Floats:
    """Shading of an upright cylinder lit from the front: 1 in the middle, darker to the sides."""
    across = np.clip(np.abs(x) / half_width, 0, 1)
    return np.asarray(0.45 + 0.6 * np.sqrt(1 - 0.85 * across**2), np.float32)


def _seam(distance: Floats, width: float, depth: float) -> Floats:
    """Factor of a dark line where ``distance`` is 0."""
    return np.asarray(1 - depth * np.exp(-((distance / width) ** 2)), np.float32)


def _cap(frame: Frame, line: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A baseball cap from the front: crown of panels over an arched visor."""
    x, y = frame.head
    joint = line - 0.30 - 0.10 * (1 - np.clip(x, -1, 1) ** 2)
    lower = line - 0.02 - rng.uniform(0.02, 0.12) * np.cos(np.clip(x, -1.1, 1.1) * 1.4)
    crown = smooth_step(_dome(x, y, 1.22, -2.05, line - 0.05), 1.0, 0.96)
    visor = smooth_step(np.abs(x), 1.14, 1.06) * smooth_step(y - lower, 0.0, -0.04)
    visor = visor * smooth_step(y - joint, -0.06, 0.0)
    folds = 1 + 0.04 * smooth_noise(rng, frame.size, frame.size / 5)
    shade = _round(x, 1.25) * folds * _seam(x, 0.02, 0.35)
    shade = shade * _seam(np.abs(x) - 0.62 - 0.12 * (y + 1.0), 0.02, 0.25)
    depth = np.clip((y - joint) / (lower - joint + 1e-6), 0, 1)
    peak = (0.50 + 0.38 * depth) * (1 - 0.18 * np.abs(x)) * _seam(y - lower + 0.05, 0.015, 0.15)
    on_visor = visor * smooth_step(y - joint, -0.02, 0.02)
    shade = shade * (1 - on_visor) + peak * on_visor
    shade = shade * _seam(y - joint, 0.035, 0.5)
    above = smooth_step(y - lower, 0.0, -0.04)
    return shade.astype(np.float32), np.maximum(crown * above, visor).astype(np.float32)


def _beanie(frame: Frame, line: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A knitted beanie with a ribbed cuff."""
    x, y = frame.head
    edge = line - 0.03 - 0.05 * np.cos(np.clip(x, -1.2, 1.2) * 1.3)
    cuff = edge - rng.uniform(0.36, 0.50)
    inside = smooth_step(_dome(x, y, 1.24, -2.15, line + 0.25), 1.0, 0.96)
    coverage = inside * smooth_step(y - edge, 0.0, -0.05)
    around = np.arcsin(np.clip(x / 1.26, -1, 1))
    ribs = 1 + 0.16 * np.cos(around * rng.uniform(34, 46))
    stitches = 1 + 0.09 * np.cos(around * 30) * np.cos(y * 42 + 3 * np.sin(around * 15))
    on_cuff = smooth_step(y - cuff, -0.03, 0.01)
    texture = stitches * (1 - on_cuff) + ribs * 1.06 * on_cuff
    shade = _round(x, 1.26) * texture * _seam(y - cuff, 0.04, 0.45)
    shade = shade * (1 + 0.03 * smooth_noise(rng, frame.size, frame.size / 6))
    return shade.astype(np.float32), coverage


def _hat(frame: Frame, line: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A brimmed hat with a ribbon."""
    x, y = frame.head
    brim_y = line - 0.22
    sag = rng.uniform(-0.06, 0.10)
    middle = brim_y + sag * (np.clip(x, -1.6, 1.6) / 1.6) ** 2
    radius = np.hypot(x / 1.62, (y - middle) / 0.20)
    brim = smooth_step(radius.astype(np.float32), 1.0, 0.93)
    crown = smooth_step(np.abs(x) + 0.10 * (y + 1.0), 1.04, 0.99) * smooth_step(
        y - brim_y, 0.02, -0.02
    )
    ribbon = smooth_step(y, brim_y - 0.42, brim_y - 0.38) * crown
    weave = 1 + 0.05 * np.cos(x * 60) * np.cos(y * 60)
    shade = _round(x, 1.08) * weave * (1 - 0.45 * ribbon)
    on_brim = brim * (1 - crown * smooth_step(y - middle, -0.02, -0.08))
    flat = (0.62 + 0.9 * np.clip(y - middle + 0.10, 0, 0.3)) * weave
    shade = shade * (1 - on_brim) + flat * on_brim
    shade = shade * _seam(y - brim_y + 0.10, 0.05, 0.25 * float(rng.uniform(0.5, 1)))
    return shade.astype(np.float32), np.maximum(crown, brim).astype(np.float32)
