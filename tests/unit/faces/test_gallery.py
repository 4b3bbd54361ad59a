"""The gallery: every variant of every kind, on one page that needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distill.cli.app import build_app
from distill.data.gallery import (
    FACE,
    Person,
    _rng,
    make_rows,
    page,
    people_of,
    picture,
    variants,
)
from distill.data.images import encode_jpeg
from distill.data.second import KINDS
from distill.data.second.options import CHOICES
from distill.data.second.pixels.frontal import pose_of
from distill.data.sources import damaged, held
from distill.errors import UserError


@pytest.fixture(scope="module")
def people(frontal) -> list[Person]:
    shots = ("portrait", "emotions_01", "selfie")
    return [
        Person(f"{name} <b>", *(frontal[f"{name}/{shot}.jpg"] for shot in shots))
        for name in ("P001", "P005")
    ]


def test_every_style_of_every_kind_is_shown(people):
    names = [(row.kind, row.name) for row in variants()]
    for field, styles in CHOICES.items():
        if field.endswith("_styles"):
            assert {(field.removesuffix("_styles"), style) for style in styles} <= set(names)
    assert list(dict.fromkeys(kind for kind, _ in names)) == list(KINDS)
    rows = make_rows(people, 0)
    text = page(people, rows)
    assert text.count("<img ") == len(people) * (len(rows) + 1)
    assert "P001 &lt;b&gt;" in text and "<b>P001" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # nothing from elsewhere
    sheet = picture(people, rows)
    assert sheet.height < len(rows) * FACE
    assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_every_variant_of_everybody_has_its_own_numbers(people):
    keys = [(p, seed, row.kind, row.name) for p in people for seed in (0, 1) for row in variants()]
    assert len({int(_rng(*key).integers(2**63)) for key in keys}) == len(keys)


class Listed:
    name = "listed"
    expected = None

    def __init__(self, samples):
        self._samples = samples

    def __iter__(self):
        return iter(self._samples)


def test_people_are_the_first_ones_that_can_be_used(frontal):
    jpeg = encode_jpeg(frontal["P001/portrait.jpg"].rgb)
    samples = [
        damaged("a/0", "broken", "a"),
        held("b/0", "b", jpeg),
        held("c/0", "c", jpeg),
        held("c/1", "c", encode_jpeg(frontal["P001/selfie.jpg"].rgb)),
        held("c/2", "c", jpeg),
        held("d/0", "d", jpeg),
        held("e/0", "e", jpeg),
    ]
    found = people_of(Listed(samples), 4, "template")
    assert [person.name for person in found] == ["b", "c", "d"]
    assert found[0].other is found[0].face
    assert not np.array_equal(found[1].other.rgb, found[1].face.rgb)
    assert np.array_equal(found[1].turned.rgb, found[1].other.rgb)
    with pytest.raises(UserError, match="no usable photograph"):
        people_of(Listed(samples[:1]), 4, "template")


def test_for_pose_the_photograph_that_is_turned_most_is_shown(aligned):
    """But no profile."""
    shots = ("portrait", "emotions_00", "head_left", "selfie", "emotions_01")
    faces = [aligned[f"P003/{shot}.jpg"] for shot in shots]
    samples = [
        replace(held(f"a/{i}", "a", encode_jpeg(face.rgb, 95)), landmarks=face.points)
        for i, face in enumerate(faces)
    ]
    (person,) = people_of(Listed(samples), 1, "source")
    off = [abs(np.rad2deg(pose_of(face.points)[0])) for face in faces]
    best = max((1, 3, 4), key=lambda i: off[i])
    assert off[2] > 55 > off[best]
    assert np.abs(person.turned.points - faces[best].points).max() < 1e-3


def test_the_command_writes_both_files(tmp_path, frontal):
    for origin, face in frontal.items():
        path = tmp_path / "photos" / origin
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(face.rgb))
    arguments = ["gallery", str(tmp_path / "photos"), str(tmp_path / "out"), "--people", "2"]
    told = CliRunner().invoke(build_app(), [*arguments, "--landmarks", "template"])
    assert told.exit_code == 0, told.output
    assert Image.open(tmp_path / "out" / "gallery.png").width > 300
    assert (tmp_path / "out" / "index.html").stat().st_size > 50_000
