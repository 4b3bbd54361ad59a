"""Frames: drawn in the eye band only, found again, and taken off towards the original."""

from __future__ import annotations

import numpy as np
import pytest

from distill.data.faces import AlignedFace
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, make_second
from distill.data.second.canvas import Frame, finished
from distill.data.second.frame_finder import find_frames
from distill.data.second.frames import BAND, LENSES, draw_frames


def wearing(face: AlignedFace, key: int, dark: bool = False) -> tuple[AlignedFace, np.ndarray]:
    """The face with frames on, and where their rims are."""
    drawn = draw_frames(Frame(face), keyed_rng("wearing", key), dark)
    return AlignedFace(finished(drawn.rgb), face.points), drawn.rim


@pytest.mark.parametrize("mode", ["draw", "remove", "auto"])
def test_nothing_changes_outside_the_eye_band(aligned, mode):
    options = SecondOptions(glasses=mode)
    for index, face in enumerate(aligned.values()):
        worn = wearing(face, index)[0] if mode == "remove" else face
        rgb, _ = make_second("glasses", worn, keyed_rng(index), options=options)
        _, y = Frame(face).grid
        outside = (y < BAND[0]) | (y > BAND[1])
        assert np.array_equal(rgb[outside], worn.rgb[outside])


def test_drawn_frames_are_seen_and_told(frontal):
    options = SecondOptions(glasses="draw", sunglasses=0.0)
    for index, face in enumerate(frontal.values()):
        rgb, how = make_second("glasses", face, keyed_rng(index), options=options)
        assert how.startswith("glasses: drawn ")
        assert any(shape in how for shape in LENSES)
        assert (
            np.abs(rgb.astype(int) - face.rgb).max(axis=2) > 25
        ).mean() > 0.012  # a wire half-rim


def test_sunglasses_hide_the_eyes(frontal):
    options = SecondOptions(glasses="draw", sunglasses=1.0)
    for index, face in enumerate(frontal.values()):
        rgb, how = make_second("glasses", face, keyed_rng(index), options=options)
        assert "sunglasses" in how
        for x, y in face.points[:2].round().astype(int):
            assert rgb[y - 1 : y + 2, x - 4 : x + 5].mean() < 90


def test_frames_are_found_and_bare_faces_are_not(frontal):
    bare = [find_frames(Frame(face)).found for face in frontal.values()]
    worn = [
        find_frames(Frame(wearing(face, 10 * k + i)[0])).found
        for i, face in enumerate(frontal.values())
        for k in range(3)
    ]
    assert np.mean(bare) <= 0.10
    assert np.mean(worn) >= 0.90


def test_grey_photographs_too(frontal):
    def grey(face: AlignedFace) -> AlignedFace:
        return AlignedFace(
            np.repeat(face.rgb.mean(2, keepdims=True), 3, 2).astype(np.uint8), face.points
        )

    bare = [find_frames(Frame(grey(face))).found for face in frontal.values()]
    worn = [
        find_frames(Frame(grey(wearing(f, i)[0]))).found for i, f in enumerate(frontal.values())
    ]
    assert np.mean(worn) - np.mean(bare) > 0.5


def test_removal_brings_the_rims_nearer_to_the_original(frontal):
    options = SecondOptions(glasses="remove")
    better = []
    for index, face in enumerate(frontal.values()):
        worn, rim = wearing(face, index)
        rgb, how = make_second("glasses", worn, keyed_rng(0), options=options)
        if how == "glasses: frames removed":
            here = rim > 0.3
            before, after = (np.abs(i.astype(int) - face.rgb)[here].mean() for i in (worn.rgb, rgb))
            better.append(after / before)
    assert len(better) > 0.8 * len(frontal)
    assert np.median(better) < 0.65
    assert np.mean(np.array(better) < 1) > 0.9


def test_dark_lenses_are_left_and_told(frontal):
    options = SecondOptions(glasses="remove")
    told = []
    for index, face in enumerate(frontal.values()):
        worn, _ = wearing(face, index, dark=True)
        rgb, how = make_second("glasses", worn, keyed_rng(0), options=options)
        told.append(how)
        if how == "glasses: sunglasses left":
            assert np.array_equal(rgb, worn.rgb)
    assert told.count("glasses: frames removed") <= 0.15 * len(told)


def test_auto_draws_where_nothing_is_found_and_else_removes(frontal):
    face = frontal["P001/portrait.jpg"]
    worn, _ = wearing(face, 0)
    assert "drawn" in make_second("glasses", face, keyed_rng(0))[1]
    assert "removed" in make_second("glasses", worn, keyed_rng(0))[1]
