"""`pose`: other photos warped and turned to the front, against plain formulas and drawn heads."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.faces import TEMPLATE, AlignedFace, apply
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, make_second, process
from distill.data.second.pixels import frontal as turning
from distill.data.second.pixels import pose as pose_file
from distill.data.second.pixels.pose import affine, tamed
from distill.data.second.pixels.warp import sample, similarity

EYES = TEMPLATE[:2].astype(np.float64)
MIDDLE, UNIT = EYES.mean(0), np.hypot(*(EYES[1] - EYES[0]))


def posed(face: AlignedFace, other: AlignedFace, style: str) -> tuple[AlignedFace, str]:
    """The second image of one style."""
    options = SecondOptions(pose_styles=(style,))
    return process(["pose"], face, lambda _: keyed_rng(0), other=other, options=options)


def to_front(points: np.ndarray) -> np.ndarray:
    """The affine warp of `pose`."""
    target = TEMPLATE.astype(np.float64)
    return tamed(affine(points, target), similarity(points.astype(np.float64), target))


def test_pose_brings_the_points_to_the_template(aligned):
    rng = np.random.default_rng(0)
    for origin, face in aligned.items():
        for _ in range(3):
            tilt = np.eye(2) + rng.uniform(-0.15, 0.15, (2, 2))
            points = (face.points @ tilt.T + rng.uniform(-8, 8, 2)).astype(np.float32)
            if "head" not in origin:
                matrix = to_front(points)
                expected = by_normal_equations(points)
                if np.linalg.cond(expected[:, :2]) < 1.5:
                    assert np.allclose(matrix, expected, atol=1e-3)
                after = np.linalg.norm(apply(matrix, points) - TEMPLATE)
                assert after < np.linalg.norm(points - TEMPLATE)


def by_normal_equations(points: np.ndarray) -> np.ndarray:
    """Least squares in float64."""
    a = np.hstack([points.astype(np.float64), np.ones((5, 1))])
    return (np.linalg.inv(a.T @ a) @ a.T @ TEMPLATE.astype(np.float64)).T


def test_pose_of_a_profile_is_not_stretched(aligned):
    for origin, face in aligned.items():
        if "head" in origin:
            assert np.linalg.cond(to_front(face.points)[:, :2]) <= 1.5 + 1e-6


def test_pose_takes_the_other_photo(frontal):
    face, other = frontal["P001/portrait.jpg"], frontal["P001/selfie.jpg"]
    rgb, how = make_second("pose", face, keyed_rng(0), other=other)
    assert how.startswith("pose: other photo, ")
    near = np.abs(rgb.astype(int) - other.rgb).mean()
    assert near < 0.5 * np.abs(rgb.astype(int) - face.rgb).mean()
    assert make_second("pose", face, keyed_rng(0))[1] == "pose: random affine"


def test_the_mesh_of_the_piecewise_warp_tiles_the_square():
    target = np.array(TEMPLATE, np.float64)
    assert np.allclose(pose_file.NODES[:5] * 112, target, atol=1e-3)
    areas = []
    for triangle in pose_file.TRIANGLES:
        a, b, c = pose_file.NODES[triangle]
        areas.append(np.cross(b - a, c - a) / 2)
    assert min(areas) > 0
    side = pose_file.NODES[:, 0].max() - pose_file.NODES[:, 0].min()
    assert np.isclose(sum(areas), side**2)


def test_piecewise_pose_puts_every_point_on_the_template(frontal):
    options = SecondOptions(pose_styles=("piecewise",))
    rng = np.random.default_rng(3)
    for face in frontal.values():
        bent = AlignedFace(face.rgb, face.points + rng.uniform(-1.5, 1.5, (5, 2)).astype("f4"))
        made, how = process(["pose"], face, lambda _: keyed_rng(0), other=bent, options=options)
        assert how == "pose: other photo, piecewise"
        plain = process(
            ["pose"], face, lambda _: keyed_rng(0), other=bent,
            options=SecondOptions(pose_styles=("affine",)),
        )[0]  # fmt: skip
        assert np.abs(made.points - TEMPLATE).max() <= np.abs(plain.points - TEMPLATE).max() + 1e-3
        assert np.abs(made.points - TEMPLATE).max() < 0.6


def test_piecewise_warp_moves_marks_where_its_points_say():
    face = AlignedFace(np.full((112, 112, 3), 90, np.uint8), TEMPLATE.copy())
    shifted = TEMPLATE + np.array([[2, 0], [-1, 2], [0, -3], [1, 1], [-2, 0]], np.float32)
    rgb = np.full((112, 112, 3), 90, np.uint8)
    for x, y in shifted.round().astype(int):
        rgb[y - 1 : y + 2, x - 1 : x + 2] = 250
    other = AlignedFace(rgb, shifted.round().astype(np.float32))
    options = SecondOptions(pose_styles=("piecewise",))
    made = process(["pose"], face, lambda _: keyed_rng(0), other=other, options=options)[0]
    for point in made.points:
        x, y = point.round().astype(int)
        assert made.rgb[y, x].min() > 180


def turn(yaw: float, pitch: float) -> np.ndarray:
    """Rotation of a head about its own vertical axis, then up; x right, y down, z to the camera."""
    c, s, d, t = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[1, 0, 0], [0, d, -t], [0, t, d]]) @ about_y


POINTS = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.57, 0.44], [-0.41, 1.15, -0.05], [0.41, 1.15, -0.05]]
)
"""Eyes, nose and mouth in distances between the eyes: the template, with depths of real noses."""


@settings(max_examples=40, deadline=None)
@given(
    yaw=st.floats(-70, 70),
    pitch=st.floats(-15, 15),
    roll=st.floats(-40, 40),
    scale=st.floats(8, 60),
)
def test_the_turn_of_a_head_is_found(yaw, pitch, roll, scale):
    flat = (POINTS @ turn(np.deg2rad(yaw), np.deg2rad(pitch)).T)[:, :2]
    c, s = np.cos(np.deg2rad(roll)), np.sin(np.deg2rad(roll))
    seen = (scale * flat @ np.array([[c, s], [-s, c]]) + 50).astype(np.float32)
    found_yaw, found_pitch = np.rad2deg(turning.pose_of(seen))
    assert abs(found_yaw - yaw) < 4
    assert abs(found_pitch) <= abs(pitch) + 2 and found_pitch * pitch > -25


HALF_AXES = np.array([1.05, 1.65, 1.2])
CENTRE = np.array([0, 0.35, -1.0])


def drawn_head(yaw: float, even: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An ellipsoid with a smooth pattern, seen by rays; image, its points, where the head is."""
    rotation = turn(np.deg2rad(yaw), 0.0)
    rows, columns = np.mgrid[:112, :112].astype(np.float64)
    start = np.stack([(columns - MIDDLE[0]) / UNIT, (rows - MIDDLE[1]) / UNIT, 0 * rows], -1)
    a = rotation.T @ [0, 0, 1] / HALF_AXES
    b = (start @ rotation - CENTRE) / HALF_AXES
    aa, ab, bb = a @ a, b @ a, (b * b).sum(-1) - 1
    hit = ab * ab - aa * bb > 0
    along = (-ab + np.sqrt(np.where(hit, ab * ab - aa * bb, 0))) / aa
    x, y, z = np.moveaxis(start @ rotation + along[..., None] * (rotation.T @ [0, 0, 1]), -1, 0)
    x = np.abs(x) if even else x
    waves = np.stack([np.sin(3 * x + k) + np.sin(4 * y + 2 * k + z) for k in range(3)], -1)
    image = np.where(hit[..., None], 128 + 50 * waves, 128)
    points = (POINTS @ rotation.T)[:, :2] * UNIT + MIDDLE
    return image.round().astype(np.uint8), points.astype(np.float32), hit


@pytest.mark.parametrize("yaw", [-50, -35, 25, 40])
@pytest.mark.parametrize("even", [True, False])
def test_a_drawn_head_is_turned_to_the_front(yaw, even):
    """Where it was seen, and of a head that is even on both sides also where it was hidden."""
    image, points, _ = drawn_head(yaw, even)
    front, _, head = drawn_head(0, even)
    made, how = posed(AlignedFace(front, TEMPLATE), AlignedFace(image, points), "frontal")
    assert how == "pose: other photo, frontal"
    assert np.abs(made.points - TEMPLATE).max() < 2.0
    rows, columns = np.mgrid[:112, :112]
    x = (columns - MIDDLE[0]) / UNIT
    face = head & (np.abs(x) < 0.9) & (rows > 25) & (rows < 100)
    if not even:
        face &= x * np.sign(yaw) < 0.2
    rigid, _ = posed(AlignedFace(front, TEMPLATE), AlignedFace(image, points), "similarity")
    wrong, wrong_rigid = (np.abs(m.rgb.astype(float) - front)[face].mean() for m in (made, rigid))
    assert wrong < 0.45 * wrong_rigid
    assert wrong < 12


def test_what_was_hidden_is_the_other_half():
    image, points, _ = drawn_head(45, even=False)
    made, _ = posed(AlignedFace(image, TEMPLATE), AlignedFace(image, points), "frontal")
    mirrored = made.rgb[:, ::-1]  # the axis of the template is 55.9, of the image 55.5
    cheek = (slice(55, 85), slice(84, 90))
    assert np.abs(made.rgb[cheek].astype(float) - mirrored[cheek]).mean() < 6


def test_a_frontal_face_stays_as_it_is(frontal):
    apart = []
    for face in frontal.values():
        eyes, nose = face.points[:2, 0], face.points[2, 0]
        if abs(nose - eyes.mean()) > 0.08 * (eyes[1] - eyes[0]):
            continue  # turned a little
        made, plain = (posed(face, face, style)[0] for style in ("frontal", "similarity"))
        blurred = [cv2.GaussianBlur(m.rgb, (0, 0), 2).astype(int) for m in (made, plain)]
        apart.append(np.abs(blurred[0] - blurred[1])[10:-10, 10:-10].mean())
        # What is not a turn, such as a smile, stays where it was.
        assert np.abs(made.points - plain.points).max() < 3
    assert np.median(apart) < 5


def test_a_profile_has_no_front_view(aligned):
    face, profile = aligned["P001/portrait.jpg"], aligned["P003/head_left.jpg"]
    made, how = posed(face, profile, "frontal")
    plain, _ = posed(face, profile, "similarity")
    assert how == "pose: other photo, similarity"
    assert np.array_equal(made.rgb, plain.rgb) and np.array_equal(made.points, plain.points)


def test_the_surface_goes_through_the_points_and_is_as_steep_as_it_says():
    for x, y, z in turning.NODES:
        assert abs(turning.surface(x, y)[0] - z) < 0.02
    step = 1e-5
    for x in np.linspace(-0.75, 0.75, 13):
        for y in np.linspace(0.05, 0.75, 6):
            _, nx, nz = turning.surface(x, y)
            high, low = turning.surface(x + step, y)[0], turning.surface(x - step, y)[0]
            assert abs(-nx / nz - (high - low) / (2 * step)) < 0.12


def test_the_edge_is_repeated_out_of_focus():
    rgb = np.random.default_rng(0).integers(0, 256, (60, 50, 3)).astype(np.uint8)
    for image, at in ((rgb, lambda d, i: (d, i)), (rgb.transpose(1, 0, 2), lambda d, i: (i, d))):
        image = np.ascontiguousarray(image)
        edge = rgb[:, 0].astype(float)
        near, far = (sampled(image, [at(d, i) for i in range(10, 50)]) for d in (-0.5, -9.0))
        assert np.abs(near - edge[10:50]).max() < 1e-9  # sharp at the edge
        means = [edge[i - 9 : i + 10].mean(0) for i in range(10, 50)]
        assert np.abs(far - means).mean() < 30
        assert far.std() < 0.5 * near.std()


def sampled(image: np.ndarray, places: list[tuple[float, float]]) -> np.ndarray:
    """Colours at (x, y)."""
    found = np.empty((len(places), 3))
    for pixel, (x, y) in zip(found, places, strict=True):
        sample(image, float(x), float(y), pixel)
    return found
