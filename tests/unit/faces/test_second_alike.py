"""Second images of the same face at another size, and in another light, are what they should be."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from distill.data.faces import AlignedFace
from distill.data.gallery import variants
from distill.data.images import Pixels
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, make_second

pytestmark = pytest.mark.slow

OF_PIXELS = {"noise", "jpeg", "fringe"}
"""Styles made of single pixels, blocks of pixels and hairs as thin as pixels allow."""
SIZES = [v for v in variants() if v.name not in OF_PIXELS and not v.wearing]
DRAWN = [v for v in SIZES if v.kind in ("mask", "forehead") or v.name == "frames"]


def twice(face: AlignedFace) -> AlignedFace:
    """The same face at twice the size."""
    rgb = cv2.resize(face.rgb, (224, 224), interpolation=cv2.INTER_LINEAR)
    return AlignedFace(np.asarray(rgb, np.uint8), (2 * face.points + 0.5).astype(np.float32))


def soft(rgb: Pixels) -> np.ndarray:
    """Without the finest detail, in which grain and edges differ."""
    return cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), 2)


@pytest.mark.parametrize("variant", SIZES, ids=lambda v: f"{v.kind}-{v.name}")
def test_at_twice_the_size_it_is_the_same_image(frontal, variant):
    """Half a pixel off, or a length that is not one of the face, would be seen."""
    options = SecondOptions(**{**variant.options, "noise": 0.0})
    # Faces are put on the template scaled about its corner: half a pixel of the larger image.
    limit = 2.2 if variant.kind == "pose" and variant.other else 1.2
    for person in ("P001", "P005"):
        face = frontal[f"{person}/portrait.jpg"]
        other = frontal[f"{person}/emotions_01.jpg"] if variant.other else None
        for seed in range(2):
            small, large = (
                make_second(variant.kind, one, keyed_rng(seed), other=two, options=options)[0]
                for one, two in ((face, other), (twice(face), other and twice(other)))
            )
            halved = cv2.resize(large, (112, 112), interpolation=cv2.INTER_AREA)
            assert np.abs(soft(small) - soft(halved)).mean() < limit
            changed = np.abs(soft(small) - soft(face.rgb)).mean()
            assert np.abs(soft(small) - soft(halved)).mean() < 0.4 * max(changed, 1.0)


@pytest.mark.parametrize("variant", DRAWN, ids=lambda v: f"{v.kind}-{v.name}")
def test_what_is_drawn_is_as_dark_as_the_photograph(frontal, variant):
    options = SecondOptions(**variant.options)
    for person in ("P001", "P003", "P008"):
        face = frontal[f"{person}/portrait.jpg"]
        dim = AlignedFace((face.rgb * 0.4).astype(np.uint8), face.points)
        for seed in range(3):
            lit, dark = (
                make_second(variant.kind, one, keyed_rng(seed), options=options)[0].astype(float)
                for one in (face, dim)
            )
            drawn = np.abs(lit - face.rgb).max(axis=2) > 25
            drawn &= np.abs(dark - dim.rgb).max(axis=2) > 10
            assert drawn.sum() > 60
            assert dark[drawn].mean() < 0.85 * lit[drawn].mean()


def test_bright_rims_are_darker_in_a_dark_photograph(frontal):
    face = frontal["P003/portrait.jpg"]
    dim = AlignedFace((face.rgb * 0.4).astype(np.uint8), face.points)
    options, seen = SecondOptions(glasses="draw", sunglasses=0.0), 0
    for seed in range(30):
        made = [make_second("glasses", f, keyed_rng(seed), options=options) for f in (face, dim)]
        rims = made[1][0].astype(int).min(axis=2) > dim.rgb.min(axis=2).astype(int) + 30
        if ("silver" in made[0][1] or "gold" in made[0][1]) and rims.sum() > 60:
            lit, dark = (float(rgb[rims].mean()) for rgb, _ in made)
            assert dark < 0.8 * lit
            seen += 1
    assert seen >= 3
