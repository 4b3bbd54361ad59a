"""What may be chosen about second images; the defaults make what a face researcher would accept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from distill.errors import UserError

Range = tuple[float, float]
"""Lowest and highest value that may be drawn."""
GlassesMode = Literal["remove", "draw", "auto"]
ForeheadStyle = Literal["skin", "fringe", "cap", "beanie", "hat"]
BlurStyle = Literal["gaussian", "motion", "defocus", "resize", "jpeg", "noise"]
PoseStyle = Literal["frontal", "similarity", "affine", "piecewise"]
MaskStyle = Literal["surgical", "respirator", "cloth"]
LightStyle = Literal["lamp", "gamma", "temperature", "exposure"]
CropStyle = Literal["tight", "loose", "cut"]


@dataclass(frozen=True)
class SecondOptions:
    """Ranges and choices of the processings. Pixels are those of a 112x112 face; other sizes scale.

    Attributes:
        forehead_styles: what may cover the hair above the brows, each as likely as the others.
        brow_gap: least distance of the lowest covered pixel above the eye line, in eye distances;
            above raised brows it is more.
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
        resize_side: side that a face of any size is reduced to and enlarged from, in pixels.
        jpeg_quality: on libjpeg's scale.
        noise: chance of sensor noise on top of another blur.
        shot_electrons: counted for white; fewer are noisier (shot noise).
        read_electrons: deviation of the read noise.
        pose_styles: warps of another photo to the template, each as likely as the others:
            `frontal` turns the head, the rest move its pixels in the plane.
        pose_degrees: largest turn of the random affine (no other photo).
        pose_scale: enlargement along each axis of the random affine.
        pose_shear: largest shear of the random affine, as a tangent.
        pose_shift: largest shift of the random affine, in pixels.
        mask_styles: masks, each as likely as the others.
        mask_low: chance that the mask is worn below the nose.
        light_styles: changes of the light, each as likely as the others.
        lamp_strength: share of the light that comes from one side.
        gamma: exponent on linear light; below 1 is brighter.
        kelvin: colour temperature of the light on a picture balanced for 6500 K.
        exposure_stops: factor on linear light, as a power of 2.
        crop_styles: faults of cropping, each as likely as the others.
        crop_zoom: enlargement of a tight crop; a loose one is reduced as much.
        crop_degrees: largest turn of a tight or loose crop.
        crop_shift: its largest shift, in pixels.
        cut: share of the side that is missing at an edge.
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
    noise: float = 0.25
    shot_electrons: Range = (150.0, 2500.0)
    read_electrons: Range = (1.0, 6.0)
    pose_styles: tuple[PoseStyle, ...] = ("frontal", "similarity")
    pose_degrees: float = 10.0
    pose_scale: Range = (0.90, 1.12)
    pose_shear: float = 0.12
    pose_shift: float = 4.0
    mask_styles: tuple[MaskStyle, ...] = get_args(MaskStyle)
    mask_low: float = 0.12
    light_styles: tuple[LightStyle, ...] = get_args(LightStyle)
    lamp_strength: Range = (0.35, 0.85)
    gamma: Range = (0.55, 1.9)
    kelvin: Range = (3500.0, 12000.0)
    exposure_stops: Range = (-1.5, 0.9)
    crop_styles: tuple[CropStyle, ...] = get_args(CropStyle)
    crop_zoom: Range = (1.05, 1.30)
    crop_degrees: float = 12.0
    crop_shift: float = 6.0
    cut: Range = (0.08, 0.28)

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            UserError: a value outside its limits, an empty range or an unknown choice.
        """
        for field in fields(self):
            _check(field.name, getattr(self, field.name))

    def numbers(self) -> npt.NDArray[Any]:
        """The same for compiled code: a record, (1,); choices as bits, `glasses` as its place."""
        row = np.zeros(1, NUMBERS)
        for field in fields(self):
            value = getattr(self, field.name)
            names = CHOICES.get(field.name)
            if names is None:
                row[field.name] = value
            elif isinstance(value, str):
                row[field.name] = names.index(value)
            else:
                row[field.name] = sum(1 << names.index(name) for name in value)
        return row

    @classmethod
    def from_described(cls, described: Mapping[str, Any]) -> SecondOptions:
        """From a mapping of some fields, such as JSON of `described` or of a user gives.

        Raises:
            UserError: an unknown name, or a value that does not fit it.
        """
        known = {field.name for field in fields(cls)}
        for name in described:
            if name not in known:
                raise UserError(
                    f"unknown second-image option {name!r}",
                    fix=f"choose from {', '.join(sorted(known))}",
                )
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in described.items()
        }
        return cls(**values)

    def described(self) -> dict[str, Any]:
        """What differs from the defaults, for a manifest; tuples as lists."""
        plain = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        changed = {name: value for name, (value, usual) in plain.items() if value != usual}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in changed.items()}


LIMITS: dict[str, Range] = {
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
    "noise": (0.0, 1.0),
    "shot_electrons": (20.0, 100000.0),
    "read_electrons": (0.0, 50.0),
    "pose_degrees": (0.0, 45.0),
    "pose_scale": (0.5, 2.0),
    "pose_shear": (0.0, 0.5),
    "pose_shift": (0.0, 16.0),
    "mask_low": (0.0, 1.0),
    "lamp_strength": (0.0, 1.0),
    "gamma": (0.2, 5.0),
    "kelvin": (1700.0, 25000.0),
    "exposure_stops": (-4.0, 3.0),
    "crop_zoom": (1.0, 2.0),
    "crop_degrees": (0.0, 45.0),
    "crop_shift": (0.0, 28.0),
    "cut": (0.0, 0.5),
}
"""Between what a number, or both ends of a range, must lie."""
CHOICES: dict[str, tuple[str, ...]] = {
    "forehead_styles": get_args(ForeheadStyle),
    "glasses": get_args(GlassesMode),
    "blur_styles": get_args(BlurStyle),
    "pose_styles": get_args(PoseStyle),
    "mask_styles": get_args(MaskStyle),
    "light_styles": get_args(LightStyle),
    "crop_styles": get_args(CropStyle),
}
"""What may be named; the compiled code knows each by its place."""
NUMBERS = np.dtype(
    [
        (f.name, "<i8") if f.name in CHOICES
        else (f.name, "<f8", (2,)) if isinstance(f.default, tuple)
        else (f.name, "<f8")
        for f in fields(SecondOptions)
    ]
)  # fmt: skip
"""`SecondOptions` in compiled code."""


def parse_options(texts: list[str]) -> dict[str, Any]:
    """``["gaussian_sigma=1..4", "blur_styles=motion,jpeg", "mask_low=0"]`` to fields and values.

    Raises:
        UserError: no ``=``, an unknown name, or a value of another form.
    """
    return dict(_parsed(text) for text in texts)


def _parsed(text: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    kinds = {field.name: field.default for field in fields(SecondOptions)}
    if not equals or name not in kinds:
        raise UserError(
            f"second-image option {text!r}", fix=f"give NAME=VALUE, NAME of {', '.join(kinds)}"
        )
    if name in CHOICES:
        chosen = tuple(part.strip() for part in value.split(","))
        return name, chosen if isinstance(kinds[name], tuple) else value
    try:
        numbers = [float(part) for part in value.split("..")]
    except ValueError:
        numbers = []
    if len(numbers) != (2 if isinstance(kinds[name], tuple) else 1):
        form = "LOW..HIGH" if isinstance(kinds[name], tuple) else "a number"
        low, high = LIMITS[name]
        raise UserError(
            f"second-image option {text!r}", fix=f"give {form} within {low:g} .. {high:g}"
        )
    return name, tuple(numbers) if len(numbers) == 2 else numbers[0]


def _check(name: str, value: object) -> None:
    """One field against its limits or choices."""
    if name in CHOICES:
        chosen = value if isinstance(value, tuple) else (value,)
        if not chosen or not set(chosen) <= set(CHOICES[name]):
            allowed = ", ".join(CHOICES[name])
            raise UserError(f"second-image option {name} = {value!r}", fix=f"choose from {allowed}")
        return
    low, high = LIMITS[name]
    ends = value if isinstance(value, tuple) else (value, value)
    if not low <= ends[0] <= ends[1] <= high:
        raise UserError(
            f"second-image option {name} = {value!r}", fix=f"stay within {low:g} .. {high:g}"
        )
