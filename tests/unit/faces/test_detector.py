"""Detection on photographs of generated people, and on pictures put together from them."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from distill.data import detector, libfacedetection
from distill.data.detector import Face, FaceDetector, prominence
from distill.data.faces import TEMPLATE, apply, similarity
from distill.data.images import decode


def test_the_faces_of_openpeople_are_found_where_they_are(photographs):
    for data in list(photographs.values())[::3]:
        faces = FaceDetector().detect(decode(data))
        assert len(faces) == 1
        assert faces[0].score > 0.8
        assert (faces[0].points >= faces[0].box[:2] - 3).all()
        assert (faces[0].points <= faces[0].box[2:] + 3).all()


@pytest.mark.parametrize("scale", [0.35, 1.0, 3.0, 5.0])
def test_one_face_at_any_size_in_the_same_place(photographs, scale):
    rgb = decode(photographs["P003/selfie.jpg"])
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    faces = FaceDetector().detect(cv2.resize(rgb, size, interpolation=how))
    reference = FaceDetector().detect(rgb)[0]
    assert len(faces) == 1
    eye_distance = np.hypot(*(reference.points[1] - reference.points[0]))
    moved = (faces[0].points + 0.5) / scale - 0.5
    assert np.abs(moved - reference.points).max() < 0.10 * eye_distance


def test_several_faces_surest_first_and_each_once(photographs):
    parts = [decode(photographs[f"P{p:03d}/portrait.jpg"]) for p in (1, 3, 5)]
    parts[1] = cv2.resize(parts[1], (160, 160), interpolation=cv2.INTER_AREA)
    parts[1] = cv2.copyMakeBorder(parts[1], 0, len(parts[0]) - 160, 0, 0, cv2.BORDER_REPLICATE)
    faces = FaceDetector().detect(np.hstack(parts))
    assert len(faces) == 3
    assert [f.score for f in faces] == sorted((f.score for f in faces), reverse=True)


def test_no_face_no_find(picture):
    assert FaceDetector().detect(picture) == []
    assert FaceDetector().detect(np.zeros((16, 16, 3), np.uint8)) == []
    assert FaceDetector().detect(np.full((20, 3000, 3), 128, np.uint8)) == []


def test_detector_travels_to_other_processes_and_repeats_itself(photographs):
    rgb = decode(photographs["P008/portrait.jpg"])
    first = FaceDetector(0.6).detect(rgb)
    again = pickle.loads(pickle.dumps(FaceDetector(0.6))).detect(rgb)
    assert [as_bytes(f) for f in first] == [as_bytes(f) for f in again]


def as_bytes(face: Face) -> bytes:
    return face.box.tobytes() + face.points.tobytes()


@pytest.fixture
def searched(monkeypatch):
    """Longest sides of all pictures that the library was given."""
    sides: list[int] = []
    real = libfacedetection.detect

    def noted(bgr: np.ndarray):
        sides.append(max(bgr.shape[:2]))
        return real(bgr)

    monkeypatch.setattr(libfacedetection, "detect", noted)
    return sides


def group(photographs, sides: list[int], width: int = 1400, height: int = 900) -> np.ndarray:
    """Portraits of these sides beside each other, from the left."""
    scene, left = np.full((height, width, 3), 90, np.uint8), 10
    for side, person in zip(sides, (1, 3, 5, 8), strict=False):
        portrait = decode(photographs[f"P{person:03d}/portrait.jpg"])
        scale = side / max(portrait.shape[:2])
        size = (round(portrait.shape[1] * scale), round(portrait.shape[0] * scale))
        small = cv2.resize(portrait, size, interpolation=cv2.INTER_AREA)
        scene[10 : 10 + len(small), left : left + small.shape[1]] = small
        left += small.shape[1] + 20
    return scene


@pytest.mark.parametrize(
    "sides", [[600], [600, 90], [90, 600], [300, 320, 340], [90, 110, 130, 100], [850, 300], [70]]
)
def test_the_foremost_face_is_the_most_prominent_of_all(photographs, sides):
    scene = group(photographs, sides)
    every = FaceDetector().detect(scene)
    assert len(every) == len(sides)
    best = max(every, key=lambda face: prominence(face, scene))
    face, count = FaceDetector().foremost(scene)
    assert 1 <= count <= len(sides)
    assert np.abs(face.points - best.points).max() < 0.12 * best.side


def test_no_face_is_foremost_where_none_is(picture):
    assert FaceDetector().foremost(picture) is None


def test_a_large_face_is_sought_in_the_small_copy_alone(photographs, searched):
    scene = group(photographs, [850])
    FaceDetector().foremost(scene)
    assert max(searched) == 320
    searched.clear()
    FaceDetector().foremost(group(photographs, [100]))
    assert max(searched) == 960


def test_a_face_that_the_small_copy_does_not_show_is_found(photographs):
    scene = cv2.resize(group(photographs, [240]), None, fx=0.15, fy=0.15)
    large = cv2.copyMakeBorder(group(photographs, [80]), 0, 0, 0, 1000, cv2.BORDER_REPLICATE)
    assert list(detector._find(large, 320 / 2400, 0.7)) == []
    found = FaceDetector().foremost(large)
    assert found is not None
    assert (found[0].box[2:] < 110).all()
    assert FaceDetector().foremost(scene) is not None  # 210 pixels: enlarged


@pytest.mark.parametrize("side", [2900, 250])
def test_photographs_of_many_pixels_are_searched_in_halves_of_them(photographs, monkeypatch, side):
    """Nothing but the place where the picture is reduced differs; small faces lose nothing."""
    scene = group(photographs, [side], width=4001, height=3003)
    with monkeypatch.context() as whole:
        whole.setattr(detector, "_halved", lambda rgb: (rgb, 1))
        wanted, _ = FaceDetector().foremost(scene)
    taken: list[tuple[int, ...]] = []
    real = cv2.resize

    def noted(picture, *args, **kwargs):
        taken.append(picture.shape[:2])
        return real(picture, *args, **kwargs)

    monkeypatch.setattr(cv2, "resize", noted)
    face, _ = FaceDetector().foremost(scene)
    assert [shape for shape in taken if max(shape) > 2001] == [(3002, 4000)]
    assert np.abs(face.points - wanted.points).max() < 0.05 * wanted.side
    (same,) = FaceDetector().detect(scene)
    assert np.abs(same.points - wanted.points).max() < 0.08 * wanted.side


def moved(rgb: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The photograph turned, scaled and shifted a little; and the matrix back."""
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-4, 4), rng.uniform(0.93, 1.08)
    )
    matrix[:, 2] += rng.uniform(-0.03, 0.03, 2) * width
    turned = cv2.warpAffine(rgb, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return turned, cv2.invertAffineTransform(matrix)


def unrest(photographs, looks: tuple[float, ...], monkeypatch) -> float:
    """Root of the mean square distance, in pixels of the template, between the places where moved
    copies of one photograph are put."""
    monkeypatch.setattr(detector, "LOOK_SIDES", looks)
    rng, squares = np.random.default_rng(5), []
    corners = np.array([[20, 20], [92, 20], [20, 100], [92, 100]])
    for data in list(photographs.values())[::2]:
        rgb = decode(data)
        ways = []
        for _ in range(4):
            copy, back = moved(rgb, rng)
            face, _ = FaceDetector().foremost(copy)
            ways.append(similarity(apply(back, face.points), TEMPLATE))
        there = apply(cv2.invertAffineTransform(np.mean(ways, axis=0)), corners)
        places = np.stack([apply(way, there) for way in ways])
        squares.append(((places - places.mean(axis=0)) ** 2).sum(axis=-1).mean())
    return float(np.sqrt(np.mean(squares)))


def test_several_looks_put_a_face_more_steadily_than_one(photographs, monkeypatch):
    several = unrest(photographs, detector.LOOK_SIDES, monkeypatch)
    one = unrest(photographs, (160.0,), monkeypatch)
    assert several < 0.85 * one
