"""Where a face is: the source's points, a detector's, the template's; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from distill.data.detector import FaceDetector
from distill.data.faces import TEMPLATE, align_face
from distill.data.images import Unusable, decode
from distill.data.locate import locate


def test_points_of_the_source_are_used_as_they_are(photographs):
    rgb = decode(photographs["P001/portrait.jpg"])
    points = FaceDetector().detect(rgb)[0].points + np.float32(4)
    wanted = align_face(rgb, points)
    given = [tuple(map(float, point)) for point in points]
    for choice in ("auto", "source"):
        face, note = locate(rgb, choice, given)
        assert np.array_equal(face.rgb, wanted.rgb)
        assert note == ""
    assert not np.array_equal(locate(rgb, "detector", given)[0].rgb, wanted.rgb)


def test_without_points_the_detector_looks(photographs):
    rgb = decode(photographs["P003/portrait.jpg"])
    assert np.array_equal(locate(rgb, "auto", None)[0].rgb, locate(rgb, "detector", None)[0].rgb)


def test_an_aligned_face_is_on_the_template(photographs):
    rgb = decode(photographs["P003/portrait.jpg"])
    face, _ = locate(rgb, "auto", None)
    assert face.rgb.shape == (112, 112, 3)
    assert np.abs(face.points - TEMPLATE).max() < 8
    again, _ = locate(face.rgb, "template", None)
    assert again.rgb is face.rgb
    assert np.array_equal(again.points, TEMPLATE)


@pytest.mark.parametrize(
    ("choice", "given", "reason"),
    [
        ("source", None, "gives no landmarks"),
        ("auto", [(0.0, 0.0)] * 4, "not five"),
        ("auto", [(float("nan"), 0.0)] * 5, "not five finite"),
        ("auto", [tuple(p) for p in TEMPLATE + 900], "outside"),
        ("auto", [tuple(p) for p in TEMPLATE[[1, 0, 2, 4, 3]]], "mirrored"),
        ("auto", [(50.0, 50.0)] * 5, "mirrored"),
        ("template", None, "not an aligned"),
    ],
)
def test_refused(choice, given, reason):
    with pytest.raises(Unusable, match=reason):
        locate(np.zeros((120, 120, 3), np.uint8), choice, given)
