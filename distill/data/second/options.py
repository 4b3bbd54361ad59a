"""What may be chosen about second images; the defaults make what a face researcher would accept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from distill.errors import UserError

Range = tuple[float, float]
"""Lowest and highest value that may be drawn, both included."""
GlassesMode = Literal["remove", "draw", "auto"]
ForeheadStyle = Literal["skin", "fringe", "cap", "beanie", "hat"]
BlurStyle = Literal["gaussian", "motion", "defocus", "resize", "jpeg"]


@dataclass(frozen=True)
class SecondOptions:
    """Ranges and choices of the processings. Pixels are those of a 112x112 face; other sizes scale.

    Attributes:
        forehead_styles: what may cover the hair above the brows, each as likely as the others.
        brow_gap: distance of the lowest covered pixel above the eye line, in eye distances.
        glasses: `remove` inpaints frames that are found and else leaves the face as it is;
            `draw` always draws frames on; `auto` removes them where found, else draws.
        sunglasses: chance that drawn lenses are dark, in [0, 1].
        eye_shift: largest shift of the eye region's jitter, in pixels (no other photo).
        eye_scale: enlargement of the eye region's jitter (no other photo).
        eye_degrees: largest turn of the eye region's jitter (no other photo).
        blur_styles: which blurs may be drawn, each as likely as the others.
        gaussian_sigma: in pixels.
        motion_length: of the streak, in pixels.
        defocus_radius: of the disc, in pixels.
        resize_side: side that the face is reduced to and enlarged from, in pixels.
        jpeg_quality: on libjpeg's scale, 1 .. 95.
        pose_degrees: largest turn of the random affine (no other photo).
        pose_scale: enlargement along each axis of the random affine.
        pose_shear: largest shear of the random affine, as a tangent.
        pose_shift: largest shift of the random affine, in pixels.
    """

    forehead_styles: tuple[ForeheadStyle, ...] = get_args(ForeheadStyle)
    brow_gap: float = 0.36
    glasses: GlassesMode = "auto"
    sunglasses: float = 0.25
    eye_shift: float = 2.0
    eye_scale: Range = (0.92, 1.10)
    eye_degrees: float = 4.0
    blur_styles: tuple[BlurStyle, ...] = get_args(BlurStyle)
    gaussian_sigma: Range = (0.8, 2.5)
    motion_length: Range = (4.0, 11.0)
    defocus_radius: Range = (1.2, 3.6)
    resize_side: Range = (20.0, 56.0)
    jpeg_quality: Range = (8.0, 35.0)
    pose_degrees: float = 10.0
    pose_scale: Range = (0.90, 1.12)
    pose_shear: float = 0.12
    pose_shift: float = 4.0

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            UserError: a value outside its limits, an empty range or an unknown choice.
        """
        for field in fields(self):
            _check(field.name, getattr(self, field.name))


_LIMITS: dict[str, Range] = {
    "brow_gap": (0.2, 0.8),
    "sunglasses": (0.0, 1.0),
    "eye_shift": (0.0, 8.0),
    "eye_scale": (0.5, 2.0),
    "eye_degrees": (0.0, 30.0),
    "gaussian_sigma": (0.1, 16.0),
    "motion_length": (1.0, 32.0),
    "defocus_radius": (0.5, 16.0),
    "resize_side": (8.0, 112.0),
    "jpeg_quality": (1.0, 95.0),
    "pose_degrees": (0.0, 45.0),
    "pose_scale": (0.5, 2.0),
    "pose_shear": (0.0, 0.5),
    "pose_shift": (0.0, 16.0),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "forehead_styles": get_args(ForeheadStyle),
    "glasses": get_args(GlassesMode),
    "blur_styles": get_args(BlurStyle),
}


def _check(name: str, value: object) -> None:
    """One field against its limits or choices."""
    if name in _CHOICES:
        chosen = value if isinstance(value, tuple) else (value,)
        if not chosen or not set(chosen) <= set(_CHOICES[name]):
            allowed = ", ".join(_CHOICES[name])
            raise UserError(f"second-image option {name} = {value!r}", fix=f"choose from {allowed}")
        return
    low, high = _LIMITS[name]
    ends = value if isinstance(value, tuple) else (value, value)
    if not low <= ends[0] <= ends[1] <= high:
        raise UserError(
            f"second-image option {name} = {value!r}", fix=f"stay within {low:g} .. {high:g}"
        )
