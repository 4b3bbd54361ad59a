"""Real faces (generated people) for the tests of this folder; detected once a session."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distill.data.detector import FaceDetector
from distill.data.faces import AlignedFace, align_face
from distill.data.images import decode
from distill.data.second.frame_finder import plane
from distill.data.sources.openpeople import OpenPeopleSource

SHOWN = ("emotions_00", "emotions_01", "portrait", "selfie", "posture_amateur", "head_left")


@pytest.fixture(scope="session")
def photographs() -> dict[str, bytes]:
    """Cut-outs of four people, by origin."""
    names = [f"P{p:03d}/{name}.jpg" for p in (1, 3, 5, 8) for name in SHOWN]
    return {s.origin: s.read() for s in OpenPeopleSource() if s.origin in names}


@pytest.fixture(scope="session")
def aligned(photographs: dict[str, bytes]) -> dict[str, AlignedFace]:
    """The same, aligned."""
    found = {}
    for origin, data in photographs.items():
        rgb = decode(data)
        face, _ = FaceDetector().foremost(rgb)
        found[origin] = align_face(rgb, face.points)
    return found


@pytest.fixture(scope="session")
def frontal(aligned: dict[str, AlignedFace]) -> dict[str, AlignedFace]:
    """Without the profiles."""
    return {origin: face for origin, face in aligned.items() if "head" not in origin}


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """A smooth 64x96 RGB picture that every codec keeps well."""
    rows, columns = np.mgrid[:64, :96]
    waves = [127 + 90 * np.sin(rows / 17 + k) * np.cos(columns / 23 + 2 * k) for k in range(3)]
    return np.stack(waves, axis=2).astype(np.uint8)


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


@pytest.fixture(scope="session")
def save():
    return saved


def grid_of(face: AlignedFace) -> tuple[np.ndarray, np.ndarray]:
    """Face coordinates x and y of every pixel: from between the eyes, in eye distances."""
    p = plane(face)
    rows, columns = np.mgrid[: face.rgb.shape[0], : face.rgb.shape[1]].astype(np.float64)
    offset = np.stack([columns - p.ox, rows - p.oy], axis=-1)
    local = offset @ np.linalg.inv(np.array([[p.ux, p.uy], [-p.uy, p.ux]]))
    return local[..., 0], local[..., 1]


@pytest.fixture(scope="session")
def grid():
    return grid_of
