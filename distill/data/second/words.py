"""How a second image was made, in words: from the numbers that the compiled kinds tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from distill.data.second.options import CHOICES

LENSES = ("round", "oval", "rectangle", "wayfarer", "aviator", "cat-eye")
"""Names of `lens.SHAPES`."""
RIMS = ("black", "tortoise", "brown", "navy", "red", "gunmetal", "silver", "gold")
"""Names of `frames.RIMS`."""
CUTS = ("straight", "swept left", "swept right", "curtain", "wispy")
"""Names of the fringes of `hair`."""
CLOTHS = (
    "black", "navy", "grey", "red", "olive", "burgundy", "beige", "white", "denim", "mustard",
)  # fmt: skip
"""Names of `headwear.CLOTHS`."""
MASKS = (
    ("blue", "white", "green", "black", "pink"),
    ("white", "white", "grey", "black", "light blue"),
    ("black", "red", "navy", "beige", "green"),
)
"""Names of `mask.COLOURS`."""
SIDES = ("left", "right", "top", "bottom")


def words(kind: str, told: npt.NDArray[Any]) -> str:
    """E.g. ``"motion 6.2"`` for a `blur`; ``told`` is (TOLD,) as its kind filled it."""
    return _WORDS[kind](int(told[0]), *map(float, told[1:]))


def _pose(style: int, *_: float) -> str:
    if style == len(CHOICES["pose_styles"]):
        return "random affine"
    return f"other photo, {CHOICES['pose_styles'][style]}"


def _eyes(style: int, *_: float) -> str:
    return ("other photo", "own, jittered")[style]


def _glasses(done: int, shape: float, rim: float, half: float) -> str:
    if done > 1:
        return ("frames removed", "no frames found", "sunglasses left")[done - 2]
    what = "sunglasses" if done == 1 else "half-rim frames" if half else "frames"
    return f"drawn {RIMS[int(rim)]} {LENSES[int(shape)]} {what}"


def _mask(style: int, colour: float, low: float, *_: float) -> str:
    where = ", below the nose" if low else ""
    return f"{MASKS[style][int(colour)]} {CHOICES['mask_styles'][style]} mask{where}"


def _forehead(style: int, second: float, own: float, *_: float) -> str:
    name = CHOICES["forehead_styles"][style]
    if name == "skin":
        return name
    if name == "fringe":
        return f"fringe {CUTS[int(second)]}, {'own' if own else 'natural'} hair"
    return f"{CLOTHS[int(second)]} {name}"


def _light(style: int, amount: float, degrees: float, *_: float) -> str:
    name = CHOICES["light_styles"][style]
    if name == "lamp":
        return f"lamp {amount:.2f} from {degrees:.0f} degrees"
    unit = {"temperature": " K", "exposure": " stops"}.get(name, "")
    return f"{name} {amount:.0f}{unit}" if name == "temperature" else f"{name} {amount:.2f}{unit}"


def _crop(style: int, amount: float, side: float, *_: float) -> str:
    name = CHOICES["crop_styles"][style]
    return f"cut {amount:.2f} {SIDES[int(side)]}" if name == "cut" else f"{name} {amount:.2f}"


def _blur(style: int, amount: float, electrons: float, *_: float) -> str:
    name = CHOICES["blur_styles"][style]
    noise = f"noise {electrons:.0f} e" if electrons else ""
    own = "" if name == "noise" else f"{name} {amount:.1f}"
    return ", ".join(filter(None, (own, noise)))


_WORDS: dict[str, Callable[..., str]] = {
    "pose": _pose,
    "eyes": _eyes,
    "glasses": _glasses,
    "mask": _mask,
    "forehead": _forehead,
    "light": _light,
    "crop": _crop,
    "blur": _blur,
}
