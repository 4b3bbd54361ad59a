"""How second images were made, in words; and the rings that are laid over a face to find frames."""

from __future__ import annotations

import numpy as np
import pytest

from distill.data.second.frame_finder import LEFT, PER_UNIT, RIGHT, TOP, _outline, _rings
from distill.data.second.options import CHOICES
from distill.data.second.pixels.lens import APART, CANDIDATES, DROP, HEIGHT, SQUARE, WIDTH, beyond
from distill.data.second.words import CLOTHS, CUTS, LENSES, RIMS, words


def place(field: str, name: str) -> int:
    return CHOICES[field].index(name)


@pytest.mark.parametrize(
    ("kind", "told", "said"),
    [
        ("pose", (place("pose_styles", "affine"),), "other photo, affine"),
        ("pose", (len(CHOICES["pose_styles"]),), "random affine"),
        ("eyes", (0,), "other photo"),
        ("eyes", (1,), "own, jittered"),
        ("glasses", (0, 2, RIMS.index("navy"), 0), f"drawn navy {LENSES[2]} frames"),
        ("glasses", (0, 0, RIMS.index("gold"), 1), f"drawn gold {LENSES[0]} half-rim frames"),
        ("glasses", (1, 4, 0, 0), f"drawn {RIMS[0]} aviator sunglasses"),
        ("glasses", (2,), "frames removed"),
        ("glasses", (3,), "no frames found"),
        ("glasses", (4,), "sunglasses left"),
        ("mask", (place("mask_styles", "surgical"), 2, 0), "green surgical mask"),
        ("mask", (place("mask_styles", "cloth"), 1, 1), "red cloth mask, below the nose"),
        ("forehead", (place("forehead_styles", "skin"),), "skin"),
        ("forehead", (1, CUTS.index("curtain"), 1), "fringe curtain, own hair"),
        ("forehead", (1, CUTS.index("wispy"), 0), "fringe wispy, natural hair"),
        ("forehead", (place("forehead_styles", "hat"), CLOTHS.index("denim")), "denim hat"),
        ("light", (place("light_styles", "lamp"), 0.5, 200.4), "lamp 0.50 from 200 degrees"),
        ("light", (place("light_styles", "gamma"), 1.25), "gamma 1.25"),
        ("light", (place("light_styles", "temperature"), 4321.4), "temperature 4321 K"),
        ("light", (place("light_styles", "exposure"), -1.5), "exposure -1.50 stops"),
        ("crop", (place("crop_styles", "tight"), 1.2), "tight 1.20"),
        ("crop", (place("crop_styles", "cut"), 0.25, 2), "cut 0.25 top"),
        ("blur", (place("blur_styles", "motion"), 6.21), "motion 6.2"),
        ("blur", (place("blur_styles", "jpeg"), 20, 300.4, 2), "jpeg 20.0, noise 300 e"),
        ("blur", (place("blur_styles", "noise"), 0, 900, 2), "noise 900 e"),
    ],
)
def test_words(kind, told, said):
    assert words(kind, np.array([*told, 0, 0, 0, 0][:4], float)) == said


@pytest.mark.parametrize("side", [-1, 1])
def test_rings_lie_on_the_lenses(side):
    """By the distance that drawing takes, which knows nothing of angles."""
    for lens in CANDIDATES:
        for share, sign in ((0.78, -1), (1.0, 0), (1.22, 1)):
            points = _outline(lens, share, side)
            own = points[points[:, 0] * side > 0]  # large ones reach over the nose
            assert len(own) > 24
            away = np.array([beyond(lens, x, y) for x, y in own])
            assert (np.abs(away) < 1e-9).all() if sign == 0 else (away * sign > 0.01).all()


def test_rings_leave_out_the_upper_part_where_brows_are():
    rows, columns = divmod(_rings()[0], round((RIGHT - LEFT) * PER_UNIT))
    for number, lens in enumerate(CANDIDATES):
        for side in (0, 1):
            x = columns[number, side] / PER_UNIT + LEFT
            y = rows[number, side] / PER_UNIT + TOP
            top = lens[DROP] - lens[HEIGHT] * 0.35 ** (2 / lens[SQUARE])
            assert y.min() > top - 0.6 / PER_UNIT
            assert abs(y.max() - min(lens[DROP] + lens[HEIGHT], 0.85)) < 1.1 / PER_UNIT
            outer = min(lens[APART] + lens[WIDTH], 1.3)
            assert abs(np.abs(x).max() - outer) < 1.1 / PER_UNIT
            assert len(x) == sum(np.sin(2 * np.pi * k / 32) > -0.35 for k in range(32))
