"""Spectacle frames and sunglasses, drawn on a face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from distill.data.second.canvas import (
    Floats,
    Frame,
    blend,
    blurred,
    brightness,
    floats,
    skin_colour,
    smooth_noise,
    smooth_step,
)

BAND = (-0.52, 0.66)
"""Rows that drawn or removed frames may touch, above and below the eye line, in eye distances."""


@dataclass(frozen=True)
class Lens:
    """The outline of a lens in face coordinates (unit: distance between the eyes).

    A superellipse of half axes ``width`` and ``height`` about (+-``apart``, ``drop``).

    Attributes:
        width, height: half axes.
        square: exponent; 2 is an ellipse, larger is closer to a rectangle.
        apart: distance of its middle from the middle of the face.
        drop: of its middle below the eye line.
        taper: how much narrower its lower half is.
        lift: how far its outer upper corner is raised.
    """

    width: float
    height: float
    square: float = 2.0
    apart: float = 0.51
    drop: float = 0.05
    taper: float = 0.0
    lift: float = 0.0

    def outline(self, side: int, points: int = 64) -> npt.NDArray[np.float64]:
        """(points, 2) clockwise from the outer end; ``side`` -1 is the left eye, 1 the right."""
        angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
        power = 2 / self.square
        x = self.width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        y = self.height * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
        x = x * (1 - self.taper * np.clip(y / self.height, 0, 1))
        y = y - self.lift * np.clip(x / self.width, 0, 1) ** 2 * (y < 0)
        return np.stack([side * (x + self.apart), y + self.drop], axis=1)


LENSES: dict[str, Lens] = {
    "round": Lens(0.36, 0.35, drop=0.07),
    "oval": Lens(0.40, 0.29, 2.2),
    "rectangle": Lens(0.43, 0.25, 4.5, apart=0.53, drop=0.06),
    "wayfarer": Lens(0.44, 0.31, 3.2, apart=0.53, drop=0.06, taper=0.14),
    "aviator": Lens(0.45, 0.37, 2.5, apart=0.54, drop=0.10, taper=0.16),
    "cat-eye": Lens(0.42, 0.28, 2.8, apart=0.53, lift=0.12, taper=0.06),
}
"""Usual shapes, after the proportions of 50 mm lenses on eyes 63 mm apart."""
RIMS: dict[str, tuple[tuple[int, int, int], float]] = {
    "black": ((22, 21, 23), 0.066),
    "tortoise": ((74, 44, 26), 0.070),
    "brown": ((58, 38, 30), 0.058),
    "navy": ((30, 36, 62), 0.060),
    "red": ((112, 26, 32), 0.060),
    "gunmetal": ((62, 64, 70), 0.034),
    "silver": ((140, 143, 148), 0.034),
    "gold": ((164, 128, 70), 0.034),
}
"""Colour (RGB) and thickness of the rim, in eye distances."""


@dataclass(frozen=True)
class Drawn:
    """A face with frames on.

    Attributes:
        rgb: (size, size, 3) float32.
        rim: coverage by rims, bridge and arms, (size, size) in [0, 1].
        lens: coverage by the lenses, (size, size) in [0, 1].
        how: shape and colour in words.
    """

    rgb: Floats
    rim: Floats
    lens: Floats
    how: str


def draw_frames(frame: Frame, rng: np.random.Generator, dark_lenses: bool) -> Drawn:
    """Frames of a random shape and colour; the lenses tinted a little, or sunglasses.

    Args:
        frame: the face's coordinates.
        rng: a keyed generator.
        dark_lenses: sunglasses instead of clear lenses.
    """
    shape = list(LENSES)[int(rng.integers(len(LENSES)))]
    colour_name = list(RIMS)[int(rng.integers(len(RIMS)))]
    lens = _varied(LENSES[shape], rng, max(frame.eyes_apart, 0.45))
    colour, width = RIMS[colour_name]
    half = bool(rng.random() < 0.12) and not dark_lenses
    rim = _rim(frame, lens, width * rng.uniform(0.85, 1.2), half)
    glass = frame.shape(lens.outline(-1), lens.outline(1)) * band(frame)
    rgb = _shadowed(floats(frame.face.rgb), rim, frame)
    rgb = _glazed(rgb, glass, frame, rng, dark_lenses)
    rgb = blend(rgb, _material(np.array(colour, np.float32), colour_name, rim, frame, rng), rim)
    # The shadow, too, stays inside the band.
    rgb = blend(floats(frame.face.rgb), rgb, band(frame))
    what = "sunglasses" if dark_lenses else "half-rim frames" if half else "frames"
    return Drawn(rgb, rim, glass, f"{colour_name} {shape} {what}")


def band(frame: Frame) -> Floats:
    """1 in the rows about the eyes, 0 outside `BAND`, a short fade between; (size, size)."""
    _, y = frame.grid
    return smooth_step(y, BAND[0], BAND[0] + 0.03) * smooth_step(y, BAND[1], BAND[1] - 0.03)


def _varied(lens: Lens, rng: np.random.Generator, seen: float) -> Lens:
    """The same shape, a little larger or smaller, higher or lower, seen as narrow as the eyes."""
    size = rng.uniform(0.92, 1.10)
    return Lens(
        width=lens.width * size * seen,
        height=lens.height * size * rng.uniform(0.92, 1.08),
        square=lens.square,
        apart=max(lens.apart, lens.width * size + 0.09) * seen,
        drop=lens.drop + rng.uniform(-0.04, 0.05),
        taper=lens.taper,
        lift=lens.lift,
    )


def _rim(frame: Frame, lens: Lens, width: float, half: bool) -> Floats:
    """Coverage by both rims, the bridge and the arms; ``half`` leaves the lower rims out."""
    parts = [_arm(frame, lens, side, width) for side in (-1, 1) if side * frame.turn < 0.25]
    for side in (-1, 1):
        outline = lens.outline(side)
        if half:
            upper = np.roll(outline, len(outline) // 4, axis=0)
            outline = upper[np.argsort(side * upper[:, 0])]
            outline = outline[outline[:, 1] <= lens.drop + 0.02]
        parts.append(frame.line(outline, width, closed=not half))
    inner = lens.apart - lens.width
    x = np.linspace(-inner, inner, 9)
    arch = lens.drop - 0.32 * lens.height - 0.05 * (1 - (x / inner) ** 2)
    parts.append(frame.line(np.stack([x, arch], axis=1), width * 1.05, closed=False))
    covered = np.maximum.reduce(parts) * band(frame)
    return np.asarray(covered, np.float32)


def _arm(frame: Frame, lens: Lens, side: int, width: float) -> Floats:
    """The foreshortened arm from hinge to ear."""
    hinge = (lens.apart + 0.97 * lens.width, lens.drop - 0.45 * lens.height - 0.4 * lens.lift)
    ear = (max(1.16, hinge[0] + 0.12), hinge[1] + 0.05)
    ends = np.array([[side * hinge[0], hinge[1]], [side * ear[0], ear[1]]])
    x, _ = frame.grid
    # A turned head shows less of it; it ends softly where the hair begins.
    return frame.line(ends, width * 0.9, closed=False) * smooth_step(np.abs(x), 1.18, 1.02)


def _shadowed(rgb: Floats, rim: Floats, frame: Frame) -> Floats:
    """The soft shadow that a frame throws on the skin below it."""
    down = frame.axes[1] * 0.07
    shift = np.array([[1, 0, down[0]], [0, 1, down[1]]])
    moved = cv2.warpAffine(rim, shift, (frame.size, frame.size))
    return rgb * (1 - 0.30 * blurred(np.asarray(moved, np.float32), 0.05 * frame.unit))[..., None]


def _glazed(
    rgb: Floats, glass: Floats, frame: Frame, rng: np.random.Generator, dark: bool
) -> Floats:
    """Lenses: a faint tint or a dark one, and the slanted reflection of a window."""
    x, y = frame.grid
    if dark:
        tint = np.array([[26, 26, 30], [46, 34, 24], [26, 38, 34]], np.float32)[rng.integers(3)]
        density = np.clip(rng.uniform(0.80, 0.94) - 0.22 * np.clip(y, -0.3, 0.5), 0, 0.97)
    else:
        tint = np.array([214, 222, 226], np.float32)
        density = np.full_like(x, rng.uniform(0.02, 0.08))
    rgb = blend(rgb, tint, np.asarray(glass * density, np.float32))
    across = np.abs(x) * np.sign(x) + 0.7 * y - rng.uniform(-0.2, 0.2)
    streak = sum(
        np.exp(-(((across - at) / wide) ** 4)) for at, wide in ((-0.48, 0.10), (0.56, 0.10))
    )
    gloss = rng.uniform(0.06, 0.20) * smooth_step(y, 0.35, -0.25) * streak
    return blend(rgb, np.array([245, 248, 252], np.float32), np.asarray(glass * gloss, np.float32))


def _material(
    colour: npt.NDArray[np.float32],
    name: str,
    rim: Floats,
    frame: Frame,
    rng: np.random.Generator,
) -> Floats:
    """The rim's colour over the picture: lit from above, mottled where it is tortoise."""
    light = float(np.clip(brightness(skin_colour(frame)) / 150, 0.5, 1.2))
    edge = rim - np.roll(rim, 1, axis=0)
    shine = np.clip(edge, 0, 1) * (70 if name in ("silver", "gold", "gunmetal") else 34)
    surface = np.broadcast_to(colour * light, (*rim.shape, 3)) + shine[..., None]
    if name == "tortoise":
        spots = smooth_step(smooth_noise(rng, frame.size, 0.10 * frame.unit), 0.2, 0.9)
        surface = blend(
            np.asarray(surface, np.float32), np.array([150, 96, 46], np.float32), 0.7 * spots
        )
    return np.asarray(surface, np.float32)
