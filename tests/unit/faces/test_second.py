"""Second images: deterministic, changed where they should be and nowhere else."""

# over 300 lines: all kinds keep the same promises, tested side by side

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.images import encode_jpeg
from distill.data.keyed import keyed_rng
from distill.data.second import (
    KINDS,
    SecondOptions,
    combine,
    draw_kinds,
    make_second,
    parse_kinds,
)
from distill.data.second.options import parse_options
from distill.data.second.pixels.blur import disc_kernel, motion_kernel
from distill.errors import UserError

pytestmark = pytest.mark.slow


def smooth_face(seed: int = 0, size: int = 112) -> AlignedFace:
    """A stand-in with the template's points; needs no detector."""
    hills = np.random.default_rng(seed).uniform(40, 220, (7, 7, 3)).astype(np.float32)
    rgb = cv2.resize(hills, (size, size), interpolation=cv2.INTER_CUBIC)
    return AlignedFace(np.clip(rgb, 0, 255).astype(np.uint8), TEMPLATE * (size / 112))


def digests() -> str:
    """One line over all kinds; printed by another process too."""
    total = hashlib.sha256()
    for kind in KINDS:
        for index in range(6):
            other = smooth_face(9) if index % 2 else None
            rgb, how = make_second(kind, smooth_face(index), keyed_rng(1, index, kind), other=other)
            total.update(rgb.tobytes() + how.encode())
    return total.hexdigest()


def test_the_same_in_another_process():
    command = [sys.executable, __file__]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == digests()


@pytest.mark.parametrize("kind", KINDS)
def test_repeats_itself_and_leaves_its_input_and_the_global_state_alone(aligned, kind):
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    faces = list(aligned.values())
    for index, face in enumerate(faces):
        other = faces[index - 1]
        before = face.rgb.copy()
        first, how = make_second(kind, face, keyed_rng(3, index, kind), other=other)
        again, how_again = make_second(kind, face, keyed_rng(3, index, kind), other=other)
        assert first.shape == (112, 112, 3)
        assert first.dtype == np.uint8
        assert np.array_equal(first, again)
        assert how == how_again
        assert how.startswith(f"{kind}: ")
        assert np.array_equal(face.rgb, before)
        assert not np.array_equal(first, face.rgb)
    assert np.array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_another_key_gives_another_image(frontal, kind):
    face = frontal["P005/portrait.jpg"]
    made = {make_second(kind, face, keyed_rng(k, kind))[0].tobytes() for k in range(8)}
    assert len(made) == 8


@pytest.mark.parametrize("style", ["skin", "fringe", "cap", "beanie", "hat"])
def test_forehead_changes_the_brow_upwards_only(frontal, grid, style):
    options = SecondOptions(forehead_styles=(style,))
    for index, face in enumerate(frontal.values()):
        rgb, _ = make_second("forehead", face, keyed_rng(index), options=options)
        _, y = grid(face)
        below = y > -options.brow_gap + 1e-6
        assert np.array_equal(rgb[below], face.rgb[below])
        changed = np.abs(rgb.astype(int) - face.rgb).max(axis=2) > 8
        assert changed[~below].mean() > 0.2


def test_bare_skin_has_the_colour_of_the_face(frontal):
    options = SecondOptions(forehead_styles=("skin",))
    for origin, face in frontal.items():
        rgb, _ = make_second("forehead", face, keyed_rng(origin), options=options)
        cheek = np.median(face.rgb[66:76, 34:44].reshape(-1, 3), axis=0)
        brow = np.median(rgb[10:28, 45:68].reshape(-1, 3), axis=0)
        hue, wanted = brow / brow.sum(), cheek / cheek.sum()
        assert np.abs(hue - wanted).max() < 0.08, origin


@pytest.mark.parametrize("other", [None, "P003/selfie.jpg"])
def test_eyes_change_the_eye_region_only(frontal, grid, other):
    face = frontal["P003/portrait.jpg"]
    donor = frontal[other] if other else None
    rgb, how = make_second("eyes", face, keyed_rng(2), other=donor)
    assert how == ("eyes: other photo" if other else "eyes: own, jittered")
    x, y = grid(face)
    region = (np.abs(x) < 0.94) & (np.abs(y - 0.04) < 0.31)
    assert np.array_equal(rgb[~region], face.rgb[~region])
    assert np.abs(rgb.astype(int) - face.rgb)[region].mean() > 1


def test_pasted_eyes_are_the_other_photos(frontal):
    face, donor = frontal["P008/portrait.jpg"], frontal["P008/emotions_01.jpg"]
    rgb, _ = make_second("eyes", face, keyed_rng(2), other=donor)

    def detail(image: np.ndarray, points: np.ndarray) -> np.ndarray:
        patches = []
        for x, y in points[:2]:
            grey = image[round(y) - 5 : round(y) + 6, round(x) - 9 : round(x) + 10].mean(axis=2)
            patches.append(grey - cv2.GaussianBlur(grey, (0, 0), 5))
        return np.concatenate([p.ravel() for p in patches])

    now = detail(rgb, face.points)
    to_donor = np.corrcoef(now, detail(donor.rgb, donor.points))[0, 1]
    to_face = np.corrcoef(now, detail(face.rgb, face.points))[0, 1]
    assert to_donor > to_face


def test_eyes_of_a_profile_are_not_pasted_on_a_front_view(aligned):
    face, profile = aligned["P001/portrait.jpg"], aligned["P001/head_left.jpg"]
    assert make_second("eyes", face, keyed_rng(1), other=profile)[1] == "eyes: own, jittered"


@pytest.mark.parametrize("style", ["gaussian", "motion", "defocus", "resize", "jpeg"])
def test_blur_loses_detail_and_keeps_the_mean(frontal, style):
    options = SecondOptions(blur_styles=(style,), noise=0.0)
    for index, face in enumerate(frontal.values()):
        rgb, how = make_second("blur", face, keyed_rng(index), options=options)
        assert how.startswith(f"blur: {style} ")
        assert np.abs(rgb.mean(axis=(0, 1)) - face.rgb.mean(axis=(0, 1))).max() < 3
        if style == "jpeg":
            assert len(encode_jpeg(rgb, 95)) < len(encode_jpeg(face.rgb, 95))
        else:
            sharp, soft = (cv2.Laplacian(i.astype(np.float32), cv2.CV_32F) for i in (face.rgb, rgb))
            assert np.abs(soft).mean() < 0.8 * np.abs(sharp).mean()


@given(st.floats(1, 30), st.floats(0, 180))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_blur_kernels_are_centred_and_sum_to_one(amount, angle):
    for kernel in (motion_kernel(amount, angle), disc_kernel(amount / 2)):
        assert kernel.shape[0] % 2 == 1
        assert abs(kernel.sum() - 1) < 1e-5
        place = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
        assert abs((kernel.sum(axis=0) * place).sum()) < 0.15
        assert abs((kernel.sum(axis=1) * place).sum()) < 0.15


def test_kernel_widths_are_what_they_say():
    spread = motion_kernel(9.0, 0.0).sum(axis=0)
    place = np.arange(len(spread)) - len(spread) // 2
    # A box of length L has variance L^2 / 12; a disc of radius R has R^2 / 4 along each axis.
    assert abs((spread * place**2).sum() - 81 / 12) < 1.0
    disc = disc_kernel(3.5).sum(axis=0)
    place = np.arange(len(disc)) - len(disc) // 2
    assert abs((disc * place**2).sum() - 3.5**2 / 4) < 0.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [64, 112, 128, 224])
def test_other_sizes(kind, size):
    rgb, _ = make_second(kind, smooth_face(1, size), keyed_rng(1), other=smooth_face(2, size))
    assert rgb.shape == (size, size, 3)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), wild=st.floats(0, 60))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_landmarks_also_outside(kind, seed, wild):
    rng = np.random.default_rng(seed)
    points = (TEMPLATE + rng.normal(0, wild, (5, 2))).astype(np.float32)
    face = AlignedFace(smooth_face(seed).rgb, points)
    other = AlignedFace(smooth_face(seed + 1).rgb, points[::-1].copy())
    rgb, _ = make_second(kind, face, keyed_rng(seed), other=other if seed % 2 else None)
    assert rgb.shape == (112, 112, 3)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("kind", KINDS)
def test_black_and_white_images(kind, value):
    face = AlignedFace(np.full((112, 112, 3), value, np.uint8), TEMPLATE)
    make_second(kind, face, keyed_rng(4), other=face)


def test_combined_kinds_have_one_order_and_their_own_numbers(frontal):
    face, other = frontal["P005/portrait.jpg"], frontal["P005/selfie.jpg"]
    rng_of = lambda kind: keyed_rng(8, kind)  # noqa: E731
    one, how = combine(["blur", "forehead", "glasses"], face, rng_of, other=other)
    two, _ = combine(["glasses", "blur", "forehead"], face, rng_of, other=other)
    assert np.array_equal(one, two)
    assert [part.split(":")[0] for part in how.split("; ")] == ["glasses", "forehead", "blur"]
    alone = make_second("forehead", face, rng_of("forehead"), other=other)[1]
    assert alone in how


def test_after_pose_the_eyes_come_from_the_sample(frontal):
    face, other = frontal["P005/portrait.jpg"], frontal["P005/selfie.jpg"]
    rng_of = lambda kind: keyed_rng(8, kind)  # noqa: E731
    both, how = combine(["eyes", "pose"], face, rng_of, other=other)
    posed, _ = combine(["pose"], face, rng_of, other=other)
    assert how.startswith("pose: other photo, ") and how.endswith("; eyes: other photo")
    assert not np.array_equal(both, posed)


def test_kinds_come_up_as_often_as_asked():
    wanted = {"forehead": 0.3, "blur": 0.6, "pose": 0.05}
    drawn = [draw_kinds(wanted, keyed_rng("draw", i)) for i in range(4000)]
    assert all(drawn)
    none = np.prod([1 - p for p in wanted.values()])
    for kind, p in wanted.items():
        expected = p + none * p / sum(wanted.values())
        assert abs(np.mean([kind in d for d in drawn]) - expected) < 0.03


def test_parse_kinds():
    assert parse_kinds("blur=0.5, forehead") == {"forehead": 1.0, "blur": 0.5}
    assert parse_kinds("all=0.2") == dict.fromkeys(KINDS, 0.2)
    assert tuple(parse_kinds("all")) == KINDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no second-image kind"),
        (" , ", "no second-image kind"),
        ("forhead=0.5", "did you mean 'forehead'"),
        ("blur=0", "not a probability"),
        ("blur=1.01", "not a probability"),
        ("blur=-1", "not a probability"),
        ("blur=nan", "not a probability"),
        ("blur=", "not a probability"),
        ("blur=much", "not a probability"),
        ("blur,blur=0.2", "twice"),
        ("all,blur", "twice"),
    ],
)
def test_parse_kinds_refuses(text, message):
    with pytest.raises(UserError, match=message):
        parse_kinds(text)


@pytest.mark.parametrize(
    "bad",
    [
        {"glasses": "maybe"},
        {"forehead_styles": ()},
        {"blur_styles": ("gaussian", "fog")},
        {"gaussian_sigma": (3.0, 1.0)},
        {"jpeg_quality": (0.0, 50.0)},
        {"sunglasses": 1.5},
        {"brow_gap": float("nan")},
        {"mask_styles": ("veil",)},
        {"cut": (0.1, 0.9)},
    ],
)
def test_options_refuse_what_is_out_of_range(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        SecondOptions(**bad)


def test_options_from_the_command_line():
    texts = ["gaussian_sigma=1..4", "blur_styles=motion, jpeg", "mask_low=0", "glasses=draw"]
    fields = parse_options(texts)
    assert fields == {
        "gaussian_sigma": (1.0, 4.0),
        "blur_styles": ("motion", "jpeg"),
        "mask_low": 0.0,
        "glasses": "draw",
    }
    options = SecondOptions(**fields)
    described = json.loads(json.dumps(options.described()))
    assert set(described) == set(fields)
    assert SecondOptions.from_described(described) == options


@pytest.mark.parametrize(
    "text",
    ["sigma=1..2", "gaussian_sigma", "gaussian_sigma=2", "mask_low=0..1", "mask_low=x", "glasses"],
)
def test_options_from_the_command_line_refuse(text):
    with pytest.raises(UserError, match="second-image option"):
        parse_options([text])


if __name__ == "__main__":
    print(digests())
