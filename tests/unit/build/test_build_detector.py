"""libfacedetection in its own library says what its other wrapper says, find by find."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openpeople
import pytest

from distill.data.libfacedetection import detect

PHOTOGRAPHS = sorted(Path(openpeople.__file__).parent.rglob("*.jpg"))


def read(path: Path, longest: int) -> np.ndarray:
    bgr = cv2.imread(str(path))
    scale = longest / max(bgr.shape)
    return cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", ["emotions_sheet", "amateur_selfie", "studio_posture"])
def test_points_lie_in_their_boxes(name: str) -> None:
    path = next(path for path in PHOTOGRAPHS if path.stem == name)
    scores, boxes, points = detect(read(path, 640))
    sure = scores > 80
    assert len(boxes[sure]) == (16 if name == "emotions_sheet" else 1)
    for (x, y, w, h), five in zip(boxes[sure], points[sure].reshape(-1, 5, 2), strict=True):
        assert np.all((five >= [x, y]) & (five <= [x + w, y + h]))
        left, right, nose, *mouth = five
        assert left[0] < right[0]
        assert max(left[1], right[1]) < nose[1] < min(m[1] for m in mouth)


def test_an_image_is_read_by_its_strides() -> None:
    """A view into a larger image, columns reversed, is what it looks like."""
    whole = read(next(p for p in PHOTOGRAPHS if p.stem == "amateur_selfie"), 480)
    view = whole[10:-10, ::-1]
    for of_view, of_copy in zip(detect(view), detect(view.copy()), strict=True):
        np.testing.assert_array_equal(of_view, of_copy)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (33, 31), (300, 2)])
def test_noise_and_odd_sizes_are_survived(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scores, boxes, points = detect(noise)
    assert scores.shape == (len(boxes),)
    assert points.shape == (len(boxes), 10)


def test_it_equals_yuface_where_that_is_installed() -> None:
    yuface = pytest.importorskip("yuface", reason="an oracle, not a dependency; none from 3.12 on")
    for path in PHOTOGRAPHS[::6]:
        bgr = read(path, 500)
        for ours, theirs in zip(detect(bgr), yuface.detect(bgr, -1.0), strict=True):
            np.testing.assert_array_equal(ours, theirs)
