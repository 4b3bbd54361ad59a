"""Eyes that are moved, light that is changed, frames and hats of the colour that is told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.faces import TEMPLATE, AlignedFace, apply
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, make_second
from distill.data.second.frame_finder import plane
from distill.data.second.pixels import frames, headwear
from distill.data.second.pixels import mask as mask_file
from distill.data.second.pixels.face import place
from distill.data.second.pixels.hair import NATURAL
from distill.data.second.pixels.lens import DROP, SHAPES
from distill.data.second.pixels.light import blackbody
from distill.data.second.words import CLOTHS, LENSES, MASKS, RIMS


def marked_eyes(points: np.ndarray, size: int = 112) -> AlignedFace:
    """A grey face with a dark spot on each eye."""
    rows, columns = np.mgrid[:size, :size]
    rgb = np.full((size, size, 3), 160.0)
    for x, y in points[:2]:
        away = ((columns - x) ** 2 + (rows - y) ** 2) / (2 * (size / 60) ** 2)
        rgb -= 120 * np.exp(-away)[..., None]
    return AlignedFace(np.rint(rgb).astype(np.uint8), points.astype(np.float32))


def spots(rgb: np.ndarray) -> np.ndarray:
    """Where the two spots are, (2, 2): the left one first."""
    dark = np.clip(130.0 - rgb.mean(axis=2), 0, None)
    middle = rgb.shape[0] // 2
    found = []
    for half in (slice(0, middle), slice(middle, None)):
        weight = dark.copy()
        weight[:, : half.start], weight[:, half.stop or rgb.shape[0] :] = 0, 0
        rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[0]]
        found.append([np.average(grid, weights=weight) for grid in (columns, rows)])
    return np.array(found)


@pytest.mark.parametrize("size", [112, 224])
@pytest.mark.parametrize(
    ("scale", "degrees", "shift"),
    [(1.0, 0.0, 0.0), (0.9, 0.0, 0.0), (1.1, 0.0, 0.0), (1.0, 8.0, 0.0), (1.0, 0.0, 3.0)],
)
def test_eyes_are_jittered_about_the_point_between_them(size, scale, degrees, shift):
    points = TEMPLATE * (size / 112)
    options = SecondOptions(eye_scale=(scale, scale), eye_degrees=degrees, eye_shift=shift)
    turns, shifts = [], []
    for key in range(12 if degrees or shift else 1):
        made, how = make_second("eyes", marked_eyes(points, size), keyed_rng(key), options=options)
        assert how == "eyes: own, jittered"
        numbers = spots(made) @ (1, 1j)
        before = points[:2].astype(float) @ (1, 1j)
        turn = (numbers[1] - numbers[0]) / (before[1] - before[0])
        assert abs(turn) == pytest.approx(scale, abs=0.012)
        turns.append(np.rad2deg(np.angle(turn)))
        shifts.append((numbers.mean() - before.mean()) / (size / 112))
    parts = np.array([[s.real, s.imag] for s in shifts])
    for values, most in ((np.array(turns)[:, None], degrees), (parts, shift)):
        assert np.abs(values).max() <= most + 0.3
        if most:  # both ways, and nearly as far as allowed
            assert (values.max(axis=0) > 0.4 * most).all() and (
                values.min(axis=0) < -0.4 * most
            ).all()


@given(st.floats(0.8, 1.15), st.floats(-25, 25), st.floats(-8, 8), st.floats(-8, 8))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_eyes_of_another_photo_come_to_lie_on_the_eyes(scale, degrees, dx, dy):
    matrix = cv2.getRotationMatrix2D((56, 56), degrees, scale)
    matrix[:, 2] += dx, dy
    other = marked_eyes(apply(matrix, TEMPLATE))
    face = AlignedFace(np.full((112, 112, 3), 160, np.uint8), TEMPLATE)
    made, how = make_second("eyes", face, keyed_rng(0), other=other)
    assert how == "eyes: other photo"
    assert np.abs(spots(made) - TEMPLATE[:2]).max() < 0.6


@pytest.mark.parametrize("turned", ["face", "other"])
def test_only_eyes_of_heads_that_are_turned_alike_are_pasted(turned):
    """The nose tells the turn, in eye distances."""
    for turns, fit in (
        ((0.0, 0.0), True), ((0.2, 0.0), True), ((-0.2, 0.0), True), ((0.28, 0.0), False),
        ((-0.28, 0.0), False), ((0.3, 0.2), True), ((0.2, -0.2), False), ((0.38, 0.30), False),
        ((-0.38, -0.3), False),
    ):  # fmt: skip
        faces = []
        for turn in turns if turned == "face" else turns[::-1]:
            points = TEMPLATE.copy()
            points[2, 0] = points[:2, 0].mean() + turn * 35.24
            faces.append(marked_eyes(points))
        how = make_second("eyes", faces[0], keyed_rng(0), other=faces[1])[1]
        assert how == ("eyes: other photo" if fit else "eyes: own, jittered"), turns


def test_light_of_the_other_photo_is_not_taken(frontal):
    """A darker, bluer donor gives about the same eyes."""
    face, donor = frontal["P003/portrait.jpg"], frontal["P003/selfie.jpg"]
    x, y = place(plane(face), *np.mgrid[:112, :112][::-1])
    region = (np.abs(x) < 0.8) & (np.abs(y - 0.04) < 0.25)
    usual = make_second("eyes", face, keyed_rng(0), other=donor)[0].astype(float)
    tinted = AlignedFace((donor.rgb * np.array([0.5, 0.55, 0.7])).astype(np.uint8), donor.points)
    other = make_second("eyes", face, keyed_rng(0), other=tinted)[0]
    assert np.abs(other - usual)[region].mean() < 5
    assert np.abs(other.mean(axis=2) - usual.mean(axis=2))[region].mean() < 4


def test_a_glint_on_dark_eyes_is_held_back():
    """No detail is more than 2.5 times as bright as what the sample has there, nor as dark."""
    points = TEMPLATE.round().astype(int)
    for around, spot in ((20, 255), (255, 20)):
        rgb = np.full((112, 112, 3), around, np.uint8)
        for x, y in points[:2]:
            rgb[y - 1 : y + 2, x - 1 : x + 2] = spot
        face = AlignedFace(np.full((112, 112, 3), 90, np.uint8), TEMPLATE)
        made, _ = make_second("eyes", face, keyed_rng(0), other=AlignedFace(rgb, TEMPLATE))
        held = [int(made[y, x, 1]) for x, y in points[:2]]
        assert held == pytest.approx([90 * 2.5 if spot > around else 90 / 2.5] * 2, abs=1)


NOTHING = [
    {"light_styles": ("lamp",), "lamp_strength": (0.0, 0.0)},
    {"light_styles": ("gamma",), "gamma": (1.0, 1.0)},
    {"light_styles": ("temperature",), "kelvin": (6500.0, 6500.0)},
    {"light_styles": ("exposure",), "exposure_stops": (0.0, 0.0)},
]


@pytest.mark.parametrize("options", NOTHING, ids=lambda o: o["light_styles"][0])
def test_light_that_does_not_change_changes_nothing(options):
    """Every value of every channel comes back as it was."""
    values = np.arange(112 * 112 * 3) * 7 % 256
    face = AlignedFace(values.reshape(112, 112, 3).astype(np.uint8), TEMPLATE)
    made, _ = make_second("light", face, keyed_rng(1), options=SecondOptions(**options))
    assert np.array_equal(made, face.rgb)


@pytest.mark.parametrize("strength", [0.4, 0.9])
@pytest.mark.parametrize("size", [64, 112])
def test_a_lamp_lights_an_ellipsoid_by_lamberts_law(strength, size):
    """Normals of the ellipsoid by its gradient in float64; beyond its rim they stay as there."""
    points = (TEMPLATE + np.float32([3, -2])) * np.float32(size / 112)
    points[2, 0] += 4 * size / 112  # a turned head
    face = AlignedFace(np.full((size, size, 3), 90, np.uint8), points.astype(np.float32))
    p = plane(face)
    x, y = place(p, *np.mgrid[:size, :size][::-1])
    flat = np.stack([(x - 0.4 * p.turn) / (1.15 * 1.08), (y - 0.35) / 1.9])
    flat *= np.minimum(1, np.sqrt(0.96) / np.linalg.norm(flat, axis=0))
    normal = np.stack([*flat, np.sqrt(1 - (flat**2).sum(axis=0))])
    options = SecondOptions(light_styles=("lamp",), lamp_strength=(strength, strength))
    for key in range(4):
        made, how = make_second("light", face, keyed_rng(key), options=options)
        turn = np.deg2rad(float(how.split("from ")[1].split()[0]))
        lamp = np.array([0.85 * np.cos(turn), 0.85 * np.sin(turn), 0.53])
        assert np.linalg.norm(lamp) == pytest.approx(1, abs=0.01)
        facing = np.clip(np.tensordot(lamp, normal, 1), 0, None)
        light = (90 / 255) ** 2.2 * (1 - strength + strength * 1.9 * facing)
        wanted = 255 * np.clip(light, 0, 1) ** (1 / 2.2)
        assert np.abs(made - wanted[..., None]).max() < 2.5  # degrees are told as whole ones


def lobe(wavelength: np.ndarray, peak: float, below: float, above: float) -> np.ndarray:
    return np.exp(-0.5 * ((wavelength - peak) / np.where(wavelength < peak, below, above)) ** 2)


@pytest.mark.parametrize("kelvin", [1700.0, 2100.0, 2300.0, 3900.0, 4100.0, 6500.0, 12e3, 25e3])
def test_black_bodies_have_the_colours_of_plancks_law(kelvin):
    """Seen by the CIE 1931 observer, after Wyman, Sloan and Shirley, JCGT 2(2), 2013."""
    nm = np.arange(380.0, 781.0)
    power = nm**-5 / np.expm1(1.4388e7 / (nm * kelvin))
    seen = [
        1.056 * lobe(nm, 599.8, 37.9, 31.0) + 0.362 * lobe(nm, 442.0, 16.0, 26.7)
        - 0.065 * lobe(nm, 501.1, 20.4, 26.2),
        0.821 * lobe(nm, 568.8, 46.9, 40.5) + 0.286 * lobe(nm, 530.9, 16.3, 31.1),
        1.217 * lobe(nm, 437.0, 11.8, 36.0) + 0.681 * lobe(nm, 459.0, 26.0, 13.8),
    ]  # fmt: skip
    xyz = np.array([power @ curve for curve in seen])
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    wanted = np.linalg.inv(to_xyz) @ xyz / xyz[1]  # the matrix of IEC 61966-2-1
    assert blackbody(kelvin) == pytest.approx(np.maximum(wanted, 0.02), rel=0.03, abs=0.02)


def test_warmer_light_keeps_the_brightness_of_grey():
    face = AlignedFace(np.full((112, 112, 3), 110, np.uint8), TEMPLATE)
    for kelvin in (2500.0, 4000.0, 9000.0, 20000.0):
        options = SecondOptions(light_styles=("temperature",), kelvin=(kelvin, kelvin))
        made, how = make_second("light", face, keyed_rng(0), options=options)
        light = (made[0, 0] / 255.0) ** 2.2
        assert light @ [0.299, 0.587, 0.114] == pytest.approx((110 / 255) ** 2.2, rel=0.02)
        ratio = light / light[1] / (blackbody(kelvin) / blackbody(kelvin)[1])
        white = blackbody(6500.0) / blackbody(6500.0)[1]
        assert ratio * white == pytest.approx([1, 1, 1], rel=0.04)
        assert how == f"light: temperature {kelvin:.0f} K"


GREY = AlignedFace(np.full((112, 112, 3), 150, np.uint8), TEMPLATE)
"""An even face, on which whatever is drawn is seen."""


def hue_of(colours: np.ndarray) -> np.ndarray:
    """Shares of red, green and blue of the median colour, shaded as it may be."""
    middle = np.median(colours.reshape(-1, 3).astype(float), axis=0)
    return middle / middle.sum()


def test_frames_are_of_the_rims_that_are_told():
    """Colour, thickness, and no lower rims where they are half ones."""
    options, halves = SecondOptions(glasses="draw", sunglasses=0.0), 0
    x, y = place(plane(GREY), *np.mgrid[:112, :112][::-1])
    shown = {}
    for key in range(120):
        made, how = make_second("glasses", GREY, keyed_rng(key), options=options)
        rim = RIMS.index(how.split()[2])
        lens = SHAPES[LENSES.index(how.split()[3])]
        dark = made.astype(int).mean(axis=2) < 135
        lower = dark & (y > lens[DROP] + 0.2) & (np.abs(x) < 1.1)
        # A shadow lies below full rims; of half ones, nothing is below.
        assert (lower.sum() > 25) == ("half-rim" not in how), (key, how)
        halves += "half-rim" in how
        shown.setdefault(rim, []).append(made[np.abs(made.astype(int) - 150).max(axis=2) > 60])
    assert 4 <= halves <= 28  # 12 of 100
    for rim in (2, 3, 4):  # plain ones with a hue of their own
        pixels = np.concatenate(shown[rim])
        assert np.abs(hue_of(pixels) - hue_of(frames.RIMS[rim, :3])).max() < 0.06, RIMS[rim]
    spotted = hue_of(np.concatenate(shown[RIMS.index("tortoise")]))
    assert spotted == pytest.approx(hue_of(frames.RIMS[1, :3]), abs=0.06)  # its spots are lighter


def test_a_fringe_has_a_natural_colour_where_the_photo_shows_no_hair():
    options, seen = SecondOptions(forehead_styles=("fringe",)), set()
    hues = np.array([hue_of(colour) for colour in NATURAL])
    for key in range(60):
        made, how = make_second("forehead", GREY, keyed_rng(key), options=options)
        assert how.endswith("natural hair")
        hair = made[6:20, 45:68]
        kind = int(np.abs(hues - hue_of(hair)).max(axis=1).argmin())
        assert np.abs(hues[kind] - hue_of(hair)).max() < 0.03, how
        assert 0.4 < np.median(hair) / np.median(NATURAL[kind]) < 1.8
        seen.add(kind)
    assert seen == set(range(len(NATURAL)))


@pytest.mark.parametrize("style", ["cap", "beanie", "hat"])
def test_headwear_is_of_the_colour_that_is_told(style):
    options, seen = SecondOptions(forehead_styles=(style,)), set()
    for key in range(40):
        made, how = make_second("forehead", GREY, keyed_rng(key), options=options)
        colour = CLOTHS.index(how.split()[1])
        seen.add(colour)
        cloth = made[8:28, 45:68]
        assert np.abs(hue_of(cloth) - hue_of(headwear.CLOTHS[colour])).max() < 0.03, how
    assert len(seen) > 7


def test_masks_are_of_the_colour_that_is_told():
    for index, style in enumerate(("surgical", "respirator", "cloth")):
        options, seen = SecondOptions(mask_styles=(style,), mask_low=0.0), set()
        for key in range(30):
            made, how = make_second("mask", GREY, keyed_rng(key), options=options)
            name = how.removeprefix("mask: ").removesuffix(f" {style} mask")
            places = [i for i, known in enumerate(MASKS[index]) if known == name]
            hues = [hue_of(mask_file.COLOURS[index, i]) for i in places]
            seen.update(places)
            found = hue_of(made[80:100, 42:70])
            assert min(np.abs(found - hue).max() for hue in hues) < 0.03, how
        assert seen == set(range(5))


CHROMA = {"red": 0, "burgundy": 0, "pink": 0, "brown": 0, "tortoise": 0, "beige": 0, "mustard": 0,
          "gold": 0, "green": 1, "navy": 2, "blue": 2, "denim": 2, "light blue": 2}  # fmt: skip


def test_words_for_colours_are_what_one_sees():
    """The strongest channel of a colour, or none of what is black, white, grey or metal."""
    tables = [(RIMS, frames.RIMS[:, :3]), (CLOTHS, headwear.CLOTHS)]
    tables += zip(MASKS, mask_file.COLOURS, strict=True)
    for names, colours in tables:
        assert len(names) == len(colours)
        for name, colour in zip(names, np.asarray(colours, float), strict=True):
            spread = (colour.max() - colour.min()) / colour.max()
            if name in CHROMA:
                assert np.argmax(colour) == CHROMA[name] and spread > 0.07, name
            elif name != "olive":
                assert spread < 0.15, name
            light = {"black": (0, 60), "white": (200, 255), "grey": (100, 210)}.get(name, (0, 255))
            assert light[0] <= colour.mean() <= light[1], name
