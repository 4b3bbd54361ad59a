"""Where things are on a face and what a photo says of it: on drawn faces of which all is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.faces import TEMPLATE, AlignedFace, apply
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, process
from distill.data.second.frame_finder import plane
from distill.data.second.pixels.face import (
    HALF_HEAD,
    Look,
    Plane,
    head_x,
    line_at,
    look_at,
    pixel_of,
    place,
    plane_of,
    rows_between,
)

SKINS = [(224, 186, 164), (168, 124, 96), (92, 62, 48), (58, 40, 32)]
HAIRS = [(20, 18, 16), (70, 48, 30), (10, 10, 12), (14, 12, 10)]


def moved_template(size: int, scale: float, degrees: float, dx: float = 0, dy: float = 0):
    """The template's points turned and scaled about the middle of an image of another size."""
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, scale * size / 112)
    matrix[:, 2] += matrix[:, :2] @ [middle - 55.5, middle - 55.5]
    return (apply(matrix, TEMPLATE + np.float32([dx, dy]))).astype(np.float32)


@given(
    st.sampled_from([48, 112, 200]), st.floats(0.6, 1.3), st.floats(-180, 180),
    st.floats(-20, 20), st.floats(-20, 20),
)  # fmt: skip
@settings(max_examples=30, deadline=None, derandomize=True)
def test_coordinates_move_with_the_face(size, scale, degrees, dx, dy):
    """The eyes lie at +-1/2, the nose and mouth where they are on the template."""
    points = moved_template(size, scale, degrees, dx, dy)
    p = plane_of(points, size)
    apart = np.hypot(*(points[1] - points[0]))
    assert p.unit == pytest.approx(apart, rel=1e-4)
    assert p.apart == pytest.approx(1, abs=1e-3) and np.hypot(p.ux, p.uy) == pytest.approx(p.unit)
    numbers = TEMPLATE.astype(float) @ (1, 1j)
    still = (numbers - numbers[:2].mean()) / (numbers[1] - numbers[0])
    still = np.stack([still.real, still.imag], axis=1)
    for point, known in zip(points.astype(float), still, strict=True):
        assert place(p, *point) == pytest.approx(known, abs=1e-3)
        assert pixel_of(p, *place(p, *point)) == pytest.approx(point, abs=1e-6)
    assert p.turn == pytest.approx(still[2, 0], abs=1e-3)
    assert (p.mouth, p.mouth_y) == pytest.approx(still[3:].mean(axis=0), abs=1e-3)


@given(st.floats(0, 0.29), st.sampled_from([-1, 1]), st.floats(-180, 180))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_profile_is_measured_from_its_eyes_to_its_mouth(share, side, degrees):
    """Whatever the eyes, nearly one above the other, say of left and right."""
    down = 40.7
    half = 0.5 * share * down
    upright = np.array([[-half, 0], [half, 0], [side * 18, 20], [side * 6, down], [side * 6, down]])
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    p = plane_of((upright @ matrix.T + 56).astype(np.float32), 112)
    length = np.hypot(side * 6, down)
    assert p.unit == pytest.approx(0.8 * length * 35.2 / 40.7, rel=1e-4)
    assert p.apart == pytest.approx(2 * half / p.unit, abs=1e-4)
    # The mouth lies straight below the eyes, and the nose stands out to its side.
    assert p.mouth == pytest.approx(0, abs=1e-4) and np.sign(p.turn) == side
    assert p.mouth_y == pytest.approx(length / p.unit, rel=1e-4)


def test_units_have_bounds_and_points_that_coincide_are_survived():
    for points, share in ((np.full((5, 2), 56), 0.15), (TEMPLATE * 4, 0.6), (TEMPLATE / 9, 0.15)):
        p = plane_of(np.array(points, np.float32), 112)
        assert p.unit == pytest.approx(share * 112) and np.hypot(p.ux, p.uy) == pytest.approx(
            p.unit
        )
        assert -1 <= p.turn <= 1 and -0.8 <= p.mouth <= 0.8 and 0.8 <= p.mouth_y <= 1.5


@given(st.floats(-40, 40), st.floats(-2.5, 1.0), st.floats(0, 2.0), st.floats(-60, 60))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_rows_hold_every_place_between_two_heights(degrees, top, extent, dy):
    p = plane_of(moved_template(112, 1.0, degrees, dy=dy), 112)
    first, end = rows_between(p, top, top + extent)
    assert 0 <= first <= 112 and 0 <= end <= 112
    rows, columns = np.mgrid[:112, :112]
    x, y = place(p, columns, rows)
    inside = ((np.abs(x) <= 3) & (y >= top) & (y <= top + extent)).any(axis=1)
    assert set(np.flatnonzero(inside)) <= set(range(first, end))


def drawn_face(size, points, skin, hair, lean=0.0, grain=0.0, brows=(-0.4, -0.4), wide=(1.0, 1.1)):
    """A face by its coordinates: skin to ``wide``, a lighter right side, brows, hair on top."""
    p = plane_of(points, size)
    x, y = place(p, *np.mgrid[:size, :size][::-1])
    side = np.where(x < 0, *wide)
    rgb = np.empty((size, size, 3))
    rgb[:] = (60, 110, 200) if max(skin) > 150 else (210, 225, 240)
    face = (np.abs(x) < side) & (y > -1.1)
    rgb[face] = np.array(skin) * (1 + lean * np.sign(x[face]))[:, None]
    for left, height in zip((True, False), brows, strict=True):
        if np.isfinite(height):
            brow = ((x < 0) == left) & (np.abs(np.abs(x) - 0.55) < 0.4)
            rgb[brow & (y > height) & (y < height + 0.12)] = np.array(skin) * 0.4
    rgb[(y < -1.1) & (np.abs(x) < 1.1)] = hair
    rgb += np.random.default_rng(1).normal(0, max(grain, 1e-9), (size, size, 1))
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), p


@pytest.mark.parametrize(("skin", "hair"), list(zip(SKINS, HAIRS, strict=True)))
@pytest.mark.parametrize(("size", "degrees"), [(112, 0), (112, -14), (200, 9)])
def test_a_look_tells_what_was_drawn(skin, hair, size, degrees):
    """For light and dark skin alike."""
    points = moved_template(size, 0.8, degrees)
    rgb, p = drawn_face(size, points, skin, hair, lean=0.1, brows=(-0.36, -0.5))
    look = look_at(rgb, p)
    assert look.skin == pytest.approx(skin, rel=0.12)  # the cheek of one side or of the other
    assert look.light == pytest.approx(look.skin @ [0.299, 0.587, 0.114], abs=1e-6)
    assert look.lean == pytest.approx(0.1, abs=0.01)
    assert look.grain < 0.02
    assert look.brow_left == pytest.approx(-0.36, abs=0.05)
    assert look.brow_right == pytest.approx(-0.5, abs=0.05)
    assert look.wide_left == pytest.approx(1.0, abs=0.04)
    assert look.wide_right == pytest.approx(1.1, abs=0.04)
    assert look.hair == pytest.approx(np.tile(hair, (5, 1)), abs=3)
    assert look.hair_share > 0.9


def test_a_look_without_brows_and_hair_says_so():
    points = moved_template(112, 0.8, 0)
    rgb, p = drawn_face(112, points, SKINS[0], SKINS[0], brows=(np.nan, -0.4), grain=5.0)
    look = look_at(rgb, p)
    assert np.isnan(look.brow_left) and look.brow_right == pytest.approx(-0.4, abs=0.06)
    assert look.hair_share == 0
    assert 2.5 < look.grain < 5.5
    rgb, _ = drawn_face(112, points, SKINS[0], SKINS[0], brows=(np.nan, -0.4), grain=10.0)
    assert look_at(rgb, p).grain == pytest.approx(2 * look.grain, rel=0.15)
    rgb, _ = drawn_face(112, points, SKINS[1], SKINS[0], grain=60.0)
    assert look_at(rgb, p).grain == 12
    assert look.lean == pytest.approx(0, abs=0.02)
    black_bars, _ = drawn_face(112, points, SKINS[0], (0, 0, 0))
    assert look_at(black_bars, p).hair_share == 0


def test_hair_is_told_from_dark_to_light():
    points = moved_template(200, 0.8, 0)
    rgb, p = drawn_face(200, points, SKINS[0], (0, 0, 0))
    columns = np.arange(200)[None, :, None]
    x, y = place(p, *np.mgrid[:200, :200][::-1])
    hair = (y < -1.05) & (np.abs(x) < 1.1)
    shades = np.broadcast_to(20 + 0.45 * (columns - 50), rgb.shape)
    rgb[hair] = np.clip(shades, 12, 120)[hair]
    look = look_at(rgb, p)
    seen = np.clip(shades[0, :, 0], 12, 120)[(np.abs(x[100]) < 0.8)]
    wanted = np.quantile(seen, [0.05, 0.25, 0.45, 0.65, 0.85])
    assert look.hair[:, 0] == pytest.approx(wanted, abs=4)


@pytest.mark.parametrize("turns", range(4))
def test_what_lies_outside_the_image_is_no_hair(turns):
    """A dark last line at the edge over which the head reaches, whichever that is."""
    points = moved_template(112, 0.8, 0, dy=-45)
    rgb, _ = drawn_face(112, points, SKINS[0], SKINS[0])
    rgb[:1] = 20
    middle = (points - 55.5) @ (1, 1j) * (-1j) ** turns
    turned = np.stack([middle.real, middle.imag], axis=1) + 55.5
    p = plane_of(turned.astype(np.float32), 112)
    assert min(pixel_of(p, 0.0, -1.1)) < 0 or max(pixel_of(p, 0.0, -1.1)) > 111
    assert look_at(np.ascontiguousarray(np.rot90(rgb, turns)), p).hair_share == 0


def test_the_cover_of_a_forehead_ends_above_the_brows():
    points = moved_template(112, 1.0, 0)
    look = look_at(np.full((112, 112, 3), 128, np.uint8), plane_of(points, 112))
    for left in (np.nan, -0.2, -0.45, -0.7, -2.0):
        for right in (np.nan, -0.5):
            raised = look._replace(brow_left=left, brow_right=right)
            ends = [-0.36 if not b < -0.32 else max(b - 0.04, -0.8) for b in (left, right)]
            wanted = np.interp(np.linspace(-1, 1, 9), [-0.4, 0.4], ends)
            found = [line_at(raised, x, 0.36) for x in np.linspace(-1, 1, 9)]
            assert found == pytest.approx(wanted, abs=1e-6)
    wide = look._replace(wide_left=0.9, wide_right=1.2)
    p: Plane = plane_of(points, 112)
    assert head_x(p, wide, -0.9) == pytest.approx(-HALF_HEAD)
    assert head_x(p, wide, 1.2) == pytest.approx(HALF_HEAD)
    assert isinstance(wide, Look)


STYLES = [("forehead", "forehead_styles", name) for name in ("skin", "fringe", "cap", "hat")]
STYLES += [("mask", "mask_styles", name) for name in ("surgical", "respirator", "cloth")]
STYLES += [("glasses", "sunglasses", 0.0), ("glasses", "sunglasses", 1.0), ("eyes", "", "")]


def options_of(field: str, value: str | float) -> SecondOptions:
    chosen = {field: (value,) if isinstance(value, str) else value} if field else {}
    return SecondOptions(**chosen, glasses="draw", eye_degrees=0.0, eye_shift=0.0)


def soft(rgb: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), 2)


@pytest.mark.parametrize(("kind", "field", "value"), STYLES)
def test_what_is_drawn_turns_with_the_head(frontal, kind, field, value):
    """And grows and moves with it; both ways, so that no sign is right by chance."""
    options = options_of(field, value)
    for index, origin in enumerate(("P001/portrait.jpg", "P005/portrait.jpg")):
        face = frontal[origin]
        for degrees in (-25, 25):
            turn = cv2.getRotationMatrix2D((56, 70), degrees, 0.9)
            rgb = cv2.warpAffine(face.rgb, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE)
            turned = AlignedFace(rgb, apply(turn, face.points).astype(np.float32))
            made, wanted = (
                process([kind], one, lambda _, i=index: keyed_rng(i), options=options)[0].rgb
                for one in (turned, face)
            )
            wanted = cv2.warpAffine(wanted, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE)
            inside = cv2.warpAffine(np.ones((112, 112)), turn, (112, 112)) == 1
            changed = np.abs(soft(wanted) - soft(rgb))[inside].mean()
            assert np.abs(soft(made) - soft(wanted))[inside].mean() < 0.3 * changed + 0.4


@pytest.mark.parametrize(("kind", "field", "value"), [s for s in STYLES if s[2] != "fringe"])
def test_a_mirrored_face_gets_a_mirrored_drawing(frontal, kind, field, value):
    """But for the noise and the slant of reflections; swept hair is swept to one side."""
    options = options_of(field, value)
    apart, changes = [], []
    for index, origin in enumerate(("P001/portrait.jpg", "P003/portrait.jpg", "P008/selfie.jpg")):
        face = frontal[origin]
        points = face.points[[1, 0, 2, 4, 3]] * np.float32([-1, 1]) + np.float32([111, 0])
        mirrored = AlignedFace(np.ascontiguousarray(face.rgb[:, ::-1]), points)
        made, wanted = (
            process([kind], one, lambda _, i=index: keyed_rng(i), options=options)[0].rgb
            for one in (mirrored, face)
        )
        apart.append(np.abs(soft(made[:, ::-1]) - soft(wanted)).mean())
        changes.append(np.abs(soft(wanted) - soft(face.rgb)).mean())
        assert plane(mirrored).turn == pytest.approx(-plane(face).turn, abs=1e-3)
    assert np.mean(apart) < 0.25 * np.mean(changes) + 0.2
