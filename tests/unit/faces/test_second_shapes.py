"""Shapes of what is drawn, strengths of what is blurred, and how draws spread: on even faces."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, make_second
from distill.data.second.frame_finder import plane
from distill.data.second.pixels.blur import disc_kernel, motion_kernel
from distill.data.second.pixels.face import HALF_HEAD, MOUTH_Y, look_at, place
from distill.data.second.pixels.hair import _coloured
from distill.data.second.pixels.lens import BAND_BOTTOM, BAND_TOP, SHAPES, beyond
from distill.data.second.pixels.mask import _on_face
from distill.data.second.pixels.rims import rims_of, thin_lines

GREY = AlignedFace(np.full((112, 112, 3), 150, np.uint8), TEMPLATE)
X, Y = place(plane(GREY), *np.mgrid[:112, :112][::-1])
LINE = -0.36
"""Where the cover of a forehead ends if no brows are seen."""


def drawn_on_grey(kind: str, key: int, **options: object) -> tuple[np.ndarray, str]:
    """Which pixels have changed, and how."""
    made, how = make_second(kind, GREY, keyed_rng(key), options=SecondOptions(**options))
    return (made != 150).any(axis=2), how


@pytest.mark.parametrize("style", ["skin", "fringe", "cap", "beanie", "hat"])
def test_a_cover_hides_the_whole_forehead_and_little_beside_the_head(style):
    for key in range(20):
        changed, how = drawn_on_grey("forehead", key, forehead_styles=(style,))
        head = (np.abs(X) < 0.75) & (Y < LINE - 0.35) & (Y > -1.3)
        # Skin on an even face of its own colour is seen by its shading alone.
        assert changed[head].mean() > (0.85 if "curtain" in how or style == "skin" else 0.97), how
        near = (np.abs(X) < 0.7) & (Y < LINE - 0.1) & (Y > LINE - 0.35)
        assert changed[near].mean() > (0.3 if style == "fringe" else 0.85), how
        widest = 1.7 if style == "hat" else 1.32
        assert not changed[np.abs(X) > widest].any() and not changed[Y > LINE].any()


def test_fringes_have_the_cut_that_is_told():
    """By the height at which strands end, to the left, in the middle and to the right."""
    ends = {}
    for key in range(60):
        changed, how = drawn_on_grey("forehead", key, forehead_styles=("fringe",))
        lowest = np.where(changed, Y, -9).max(axis=0)
        parts = [np.abs(X[50] - x) < 0.15 for x in (-0.6, 0.0, 0.6)]
        cut = how.split("fringe ")[1].split(",")[0]
        ends.setdefault(cut, []).append([lowest[part].mean() for part in parts])
    left, middle, right = (dict(zip(ends, v, strict=True)) for v in zip(
        *(np.mean(rows, axis=0) for rows in ends.values()), strict=True
    ))  # fmt: skip
    assert set(ends) == {"straight", "swept left", "swept right", "curtain", "wispy"}
    assert abs(left["straight"] - right["straight"]) < 0.03
    assert left["swept left"] > middle["swept left"] + 0.05 > right["swept left"] + 0.1
    assert right["swept right"] > middle["swept right"] + 0.05 > left["swept right"] + 0.1
    assert min(left["curtain"], right["curtain"]) > middle["curtain"] + 0.25
    assert middle["wispy"] < middle["straight"] - 0.05


@given(st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_strands_take_colours_between_those_of_the_hair(shade, seed):
    hair = np.sort(np.random.default_rng(seed).uniform(0, 255, (5, 3)), axis=0)
    wanted = [np.interp(min(shade, 0.999) * 4, range(5), channel) for channel in hair.T]
    assert _coloured(hair, shade) == pytest.approx(wanted)


@pytest.mark.parametrize("style", ["surgical", "respirator", "cloth"])
def test_a_mask_covers_nose_mouth_and_chin_and_hangs_on_the_ears(style):
    for key in range(12):
        for low in (0.0, 1.0):
            changed, how = drawn_on_grey("mask", key, mask_styles=(style,), mask_low=low)
            assert ("below the nose" in how) == bool(low)
            nose = np.hypot(X, Y - 0.46) < 0.04
            assert changed[nose].all() if not low else not changed[nose].any()
            assert changed[(np.abs(X) < 0.5) & (Y > 1.0) & (Y < 1.35)].all()
            assert changed[(np.abs(X) < 0.2) & (Y > 1.35) & (Y < 1.55)].all()
            cheek = np.abs(X) / HALF_HEAD
            for side in (X < 0, X > 0):
                loops = changed & side & (cheek > 0.97) & (Y < 0.68)
                assert 3 < loops.sum() < 60
            assert not changed[(cheek > 1.15) | (Y < 0.22) | (Y > 2.0)].any()


@given(st.floats(-0.4, 0.4), st.floats(-0.3, 0.3), st.floats(0.85, 1.4), st.floats(0.7, 1.3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_mask_spans_a_turned_head_from_outline_to_outline(turn, mouth, mouth_y, wide):
    """Its middle lies on the side of the nose and of the mouth, its rows follow the mouth."""
    p = plane(GREY)._replace(turn=turn, mouth=mouth, mouth_y=mouth_y)
    look = look_at(GREY.rgb, p)._replace(wide_left=wide, wide_right=1.1)
    assert _on_face(p, look, 0.0, mouth_y)[1] == pytest.approx(MOUTH_Y)
    assert _on_face(p, look, 0.0, 0.0)[1] == 0
    for y, part in ((0.57 * mouth_y / MOUTH_Y, turn), (mouth_y, mouth), (mouth_y + 0.4, mouth)):
        x = np.linspace(-wide, 1.1, 201)
        across = np.array([_on_face(p, look, at, y)[0] for at in x])
        assert (across[0], across[-1]) == pytest.approx((-1, 1), abs=1e-6)
        assert (np.diff(across) > 0).all()
        middle = np.interp(0, across, x)
        assert min(0.6 * part, 0.9 * part) - 0.01 < middle < max(0.6 * part, 0.9 * part) + 0.01
    below = [_on_face(p, look, 0.0, y)[1] for y in (mouth_y, mouth_y + 0.3)]
    assert below[1] - below[0] == pytest.approx(0.3 / max(mouth_y / MOUTH_Y, 0.9), abs=1e-6)


RIM_COLOURS = {"dark": (25, 24, 26), "bright": (245, 245, 245), "hue": (60, 90, 230)}
RIM_COLOURS["grey"] = (30, 30, 30)  # in a photograph without colours


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", RIM_COLOURS)
def test_rims_of_any_colour_are_told_from_skin(name, half):
    """Dark, bright and coloured ones, and whether the lower ones are missing."""
    skin = (150, 150, 150) if name == "grey" else (190, 150, 130)
    face = AlignedFace(np.full((112, 112, 3), skin, np.uint8), TEMPLATE)
    p, lens = plane(face), SHAPES[0]
    away = np.array([beyond(lens, *at) for at in np.c_[X.flat, Y.flat]]).reshape(X.shape)
    rims = np.abs(away) < 0.035
    if half:
        rims &= Y < 0
    face.rgb[rims] = RIM_COLOURS[name]
    look = look_at(face.rgb, p)
    top, bottom = (int(np.searchsorted(Y[:, 56], edge)) for edge in (BAND_TOP, BAND_BOTTOM))
    seen = thin_lines(face.rgb, p, look, top, bottom)
    found, colour, like, missing = rims_of(face.rgb, p, look, seen, top)
    assert missing == half
    assert colour == pytest.approx(RIM_COLOURS[name], abs=3)
    assert like[rims[top:bottom]].mean() > 0.9 and like[~rims[top:bottom]].mean() < 0.02
    on = np.array([beyond(found, *at) for at in np.c_[X[rims], Y[rims]]])
    assert np.abs(on).mean() < 0.05


def noise_face(seed: int = 0) -> AlignedFace:
    rgb = np.random.default_rng(seed).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    return AlignedFace(rgb, TEMPLATE)


def test_gaussian_blur_is_of_the_sigma_that_is_told():
    face = noise_face()
    for sigma in (0.5, 1.2, 2.5, 6.0):
        options = SecondOptions(blur_styles=("gaussian",), gaussian_sigma=(sigma,) * 2, noise=0.0)
        made, how = make_second("blur", face, keyed_rng(0), options=options)
        assert how == f"blur: gaussian {sigma:.1f}"
        side = 2 * int(np.ceil(3.5 * sigma)) + 1
        wanted = cv2.GaussianBlur(face.rgb.astype(float), (side, side), sigma)
        assert np.abs(made - wanted).max() < 0.6


def test_resizing_goes_through_the_side_that_is_told():
    face = noise_face(1)
    for side in (20, 37, 56, 112):
        options = SecondOptions(blur_styles=("resize",), resize_side=(side,) * 2, noise=0.0)
        made, how = make_second("blur", face, keyed_rng(0), options=options)
        assert how == f"blur: resize {side:.1f}"
        small = cv2.resize(face.rgb.astype(np.float32), (side,) * 2, interpolation=cv2.INTER_AREA)
        large = [Image.fromarray(c).resize((112, 112), Image.BICUBIC) for c in cv2.split(small)]
        wanted = np.clip(cv2.merge([np.asarray(c) for c in large]), 0, 255)
        edge = int(np.ceil(2 * 112 / side))
        assert np.abs(made - wanted)[edge:-edge, edge:-edge].max() < 0.6


def shares_of(inside: np.ndarray, side: int) -> np.ndarray:
    """What a shape covers of each pixel, from 24 by 24 points in it."""
    return inside.reshape(side, 24, side, 24).mean(axis=(1, 3))


@given(st.floats(1, 20), st.floats(0, 179))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_streak_is_as_long_as_told_and_lies_along_its_angle(length, degrees):
    """All within half a pixel of a line of ``length`` less the pen's width."""
    kernel = motion_kernel(length, degrees)
    side = len(kernel)
    fine = (np.arange(side * 24) + 0.5) / 24 - side / 2
    end = (length - 1) / 2 * np.exp(1j * np.deg2rad(degrees))
    points = fine[None, :] + 1j * fine[:, None]
    along = np.clip((points * np.exp(-1j * np.deg2rad(degrees))).real, -abs(end), abs(end))
    away = np.abs(points - along * np.exp(1j * np.deg2rad(degrees)))
    wanted = shares_of(away <= 0.5, side)
    assert np.abs(kernel * (length - 1 + np.pi / 4) - wanted).max() < 0.15


@given(st.floats(0.5, 8.0))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_a_disc_covers_its_share_of_every_pixel(radius):
    kernel = disc_kernel(radius)
    side = len(kernel)
    fine = (np.arange(side * 24) + 0.5) / 24 - side / 2
    covered = np.hypot(fine[:, None], fine) <= radius
    area = np.pi * radius**2
    assert np.abs(kernel * area - shares_of(covered, side)).max() < 0.08
    assert side == 2 * int(np.ceil(radius)) + 1


def amounts(kind: str, place_: int, **options: object) -> np.ndarray:
    """What is told of many draws on a small face."""
    face = AlignedFace(np.full((16, 16, 3), 120, np.uint8), TEMPLATE / 7)
    chosen = SecondOptions(**options)
    told = [make_second(kind, face, keyed_rng("spread", k), options=chosen)[1] for k in range(400)]
    return np.sort([float(words.split()[place_]) for words in told])


@pytest.mark.parametrize(
    ("kind", "place_", "options", "ends", "even"),
    [
        ("light", 2, {"light_styles": ("gamma",)}, (0.55, 1.9), np.log),
        ("light", 2, {"light_styles": ("exposure",)}, (-1.5, 0.9), np.asarray),
        ("light", 2, {"light_styles": ("temperature",)}, (3500, 12000), np.reciprocal),
        ("light", 2, {"light_styles": ("lamp",)}, (0.35, 0.85), np.asarray),
        ("light", 4, {"light_styles": ("lamp",)}, (0, 360), np.asarray),
        ("blur", 2, {"blur_styles": ("noise",)}, (150, 2500), np.log),
        ("blur", 2, {"blur_styles": ("gaussian",)}, (0.8, 2.5), np.asarray),
        ("blur", 2, {"blur_styles": ("motion",)}, (4.0, 11.0), np.asarray),
        ("blur", 2, {"blur_styles": ("defocus",)}, (1.2, 3.6), np.asarray),
        ("blur", 2, {"blur_styles": ("jpeg",)}, (8, 35), np.asarray),
    ],
)
def test_strengths_are_drawn_evenly_between_their_ends(kind, place_, options, ends, even):
    """On the scale on which they are: stops, mired or a logarithm."""
    drawn = amounts(kind, place_, **options, noise=0.0)
    low, high = even(np.array(ends, float))
    shares = np.sort((even(drawn) - low) / (high - low))
    assert shares.min() > -0.02 and shares.max() < 1.02
    # Kolmogorov and Smirnov: 1 in 1000 for 400 draws; what is told is rounded.
    assert np.abs(shares - (np.arange(400) + 0.5) / 400).max() < 1.95 / 20 + 0.02


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_chances_of_noise_low_masks_and_sunglasses_are_those_given(chance):
    for kind, field, word in (
        ("blur", "noise", "noise"), ("mask", "mask_low", "below"),
        ("glasses", "sunglasses", "sunglasses"),
    ):  # fmt: skip
        options = SecondOptions(**{field: chance}, glasses="draw", blur_styles=("gaussian",))
        face = AlignedFace(np.full((16, 16, 3), 120, np.uint8), TEMPLATE / 7)
        told = [make_second(kind, face, keyed_rng(k), options=options)[1] for k in range(300)]
        assert abs(np.mean([word in how for how in told]) - chance) < 0.09 * (0 < chance < 1) + 1e-9
