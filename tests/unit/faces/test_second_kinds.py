"""Masks, light, crops, noise and compiled filters: against other libraries and plain formulas."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg

from distill.data.faces import TEMPLATE, AlignedFace, apply
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, make_second, process
from distill.data.second.pixels.blur import sensor_noise
from distill.data.second.pixels.filters import median, smoothed
from distill.data.second.pixels.jpeg import coded
from distill.data.second.pixels.light import blackbody
from distill.data.second.pixels.resample import enlargement, gaussian, reduction, through


def as_front(face: AlignedFace, size: int) -> AlignedFace:
    """The same face at another size."""
    rgb = cv2.resize(face.rgb, (size, size), interpolation=cv2.INTER_CUBIC)
    return AlignedFace(rgb, face.points * np.float32(size / 112))


@pytest.mark.parametrize("size", [64, 112, 224])
@pytest.mark.parametrize("style", ["surgical", "respirator", "cloth"])
def test_masks_cover_the_mouth_and_leave_eyes_and_brows(frontal, grid, style, size):
    options = SecondOptions(mask_styles=(style,), mask_low=0.0)
    for index, face in enumerate(frontal.values()):
        face = as_front(face, size)
        rgb, how = make_second("mask", face, keyed_rng(index), options=options)
        assert f"{style} mask" in how
        x, y = grid(face)
        assert np.array_equal(rgb[y < 0.22], face.rgb[y < 0.22])
        changed = np.abs(rgb.astype(int) - face.rgb).max(axis=2) > 8
        mouth = (np.abs(x) < 0.35) & (np.abs(y - 1.16) < 0.15)
        assert changed[mouth].mean() > 0.6  # a dark mask on a dark beard changes less


def test_a_mask_worn_low_shows_the_nose(frontal):
    options = SecondOptions(mask_low=1.0, mask_styles=("surgical",))
    face = frontal["P003/portrait.jpg"]
    rgb, how = make_second("mask", face, keyed_rng(1), options=options)
    assert how.endswith("below the nose")
    x, y = face.points[2].round().astype(int)
    nose = (slice(y - 9, y - 4), slice(x - 3, x + 4))
    assert np.array_equal(rgb[nose], face.rgb[nose])


def test_masks_turn_with_the_head(frontal):
    face = frontal["P001/portrait.jpg"]
    turn = cv2.getRotationMatrix2D((56, 70), 20, 1.0)
    rgb = cv2.warpAffine(face.rgb, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    turned = AlignedFace(rgb, apply(turn, face.points))
    options = SecondOptions(mask_styles=("surgical",), mask_low=0.0)
    straight, _ = make_second("mask", face, keyed_rng(3), options=options)
    masked, _ = make_second("mask", turned, keyed_rng(3), options=options)
    wanted = cv2.warpAffine(straight, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(masked[25:90, 25:90].astype(int) - wanted[25:90, 25:90]).mean() < 9


def test_brows_that_are_raised_raise_the_cover(frontal):
    face = frontal["P005/portrait.jpg"]
    lowest = {}
    for name, shift in (("as they are", 0), ("raised", 6)):
        rgb = face.rgb.copy()
        rgb[24:42] = np.median(face.rgb[20:26, 45:68].reshape(-1, 3), axis=0)
        for x in (38, 74):
            rgb[34 - shift : 38 - shift, x - 12 : x + 13] = 25
        options = SecondOptions(forehead_styles=("beanie",), brow_gap=0.2)
        made, _ = make_second(
            "forehead", AlignedFace(rgb, TEMPLATE.copy()), keyed_rng(0), options=options
        )
        lowest[name] = np.flatnonzero((made != rgb).any(axis=(1, 2))).max()
    assert 4 <= lowest["as they are"] - lowest["raised"] <= 8


def light_of(rgb: np.ndarray) -> np.ndarray:
    return (rgb / 255.0) ** 2.2


def test_a_lamp_lights_its_side(frontal):
    face = frontal["P003/portrait.jpg"]
    options = SecondOptions(light_styles=("lamp",), lamp_strength=(0.8, 0.8))
    for key in range(12):
        rgb, how = make_second("light", face, keyed_rng(key), options=options)
        turn = np.deg2rad(float(how.split("from ")[1].split(" ")[0]))
        gain = light_of(rgb).mean(axis=2) / (light_of(face.rgb).mean(axis=2) + 0.01)
        right, left = gain[40:95, 70:90].mean(), gain[40:95, 22:42].mean()
        if abs(np.cos(turn)) > 0.3:
            assert (right > left) == (np.cos(turn) > 0)


def test_exposure_and_gamma_are_what_they_say(picture):
    face = AlignedFace(np.ascontiguousarray(picture[:64, :64]), TEMPLATE * (64 / 112))
    for style, change in (
        ("exposure", lambda light, amount: light * 2**amount),
        ("gamma", lambda light, amount: light**amount),
    ):
        for key in range(4):
            options = SecondOptions(light_styles=(style,))
            rgb, how = make_second("light", face, keyed_rng(key), options=options)
            amount = float(how.split()[2])
            wanted = 255 * np.clip(change(light_of(face.rgb), amount), 0, 1) ** (1 / 2.2)
            assert np.abs(rgb - wanted).max() < 3.5  # the amount is told in hundredths


def test_warm_light_is_red_and_cold_light_blue():
    # CIE 15: the white of 6500 K on the Planckian locus is near that of sRGB.
    white = blackbody(6500.0) / blackbody(6500.0).mean()
    assert np.abs(white - 1).max() < 0.06
    for kelvin, order in ((3000.0, [0, 1, 2]), (12000.0, [2, 1, 0])):
        assert np.argsort(-blackbody(kelvin)).tolist() == order


@pytest.mark.parametrize("style", ["tight", "loose"])
def test_crops_move_pixels_and_points_together(frontal, style):
    face = frontal["P008/portrait.jpg"]
    options = SecondOptions(crop_styles=(style,))
    for key in range(6):
        made, how = process(["crop"], face, lambda _, k=key: keyed_rng(k), options=options)
        zoom = float(how.split()[-1])
        apart, before = (np.hypot(*(p[1] - p[0])) for p in (made.points, face.points))
        assert abs(apart / before - (zoom if style == "tight" else 1 / zoom)) < 0.01
        matrix = cv2.estimateAffine2D(face.points, made.points)[0]
        wanted = cv2.warpAffine(face.rgb, matrix, (112, 112))
        inside = cv2.warpAffine(np.ones((112, 112), np.uint8), matrix, (112, 112)) > 0
        assert np.abs(made.rgb.astype(int) - wanted)[inside].mean() < 1.5


def test_a_cut_takes_one_side_only(frontal):
    face = frontal["P008/portrait.jpg"]
    sides = set()
    for key in range(16):
        options = SecondOptions(crop_styles=("cut",))
        rgb, how = make_second("crop", face, keyed_rng(key), options=options)
        sides.add(how.split()[-1])
        changed = (rgb != face.rgb).any(axis=2)
        assert 0.07 < changed.mean() < 0.30
    assert sides == {"left", "right", "top", "bottom"}


@pytest.mark.parametrize("quality", [10, 25, 49, 50, 75, 95])
@pytest.mark.parametrize("size", [64, 100, 112])
def test_jpeg_looks_as_libjpeg_makes_it(frontal, quality, size):
    rgb = as_front(frontal["P001/portrait.jpg"], size).rgb
    encoded = simplejpeg.encode_jpeg(rgb, quality, colorsubsampling="420", fastdct=False)
    wanted = simplejpeg.decode_jpeg(encoded, fastdct=False, fastupsample=False)
    out = np.empty_like(rgb)
    coded(rgb, quality, out)
    lost = np.abs(wanted.astype(int) - rgb).mean()
    # At 95 the steps are so fine that roundings of one level decide which one is taken.
    limit = 1.5 if quality == 95 else 0.25 * lost + 0.3
    assert np.abs(out.astype(int) - wanted).mean() < limit


def test_noise_has_the_variance_of_its_formula():
    for value, electrons, read in ((60, 200.0, 2.0), (128, 400.0, 5.0), (200, 1500.0, 0.0)):
        flat = np.full((112, 112, 3), value, np.uint8)
        sensor_noise(flat, electrons, read, np.uint64(7))
        counts = light_of(flat) * electrons
        wanted = light_of(np.array(value)) * electrons + read**2
        assert abs(counts.var() / wanted - 1) < 0.08
        assert abs(counts.mean() - light_of(np.array(value)) * electrons) < 0.02 * electrons


def test_filters_agree_with_opencv(frontal):
    image = frontal["P001/portrait.jpg"].rgb.astype(np.float32)
    ours = through(gaussian(112, 2.2), image)
    theirs = cv2.GaussianBlur(image, (0, 0), 2.2, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(ours - theirs).max() < 0.8
    wide = cv2.GaussianBlur(image, (0, 0), 7.0, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(smoothed(image, 7.0) - wide).mean() < 1.0
    small = through(reduction(112, 40), image)
    assert np.abs(small - cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA)).max() < 0.05
    # OpenCV's cubic has a = -0.75, so the two differ where there are edges.
    large = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    assert np.abs(through(enlargement(40, 112), small) - large).mean() < 1.5


def test_median_is_the_upper_middle():
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        values = rng.normal(size=50)
        assert median(values, count) == np.sort(values[:count])[count // 2]
