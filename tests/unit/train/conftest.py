"""Two small packs of plain colours, one to train on and one to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from distill.data.manifest import Pack
from distill.data.pack_writer import EncodedPair, write_pack

NAMES, KINDS = ["Ada", "Bo", "Cy"], ["blur", "eyes"]


def plain(person: int) -> bytes:
    picture = np.full((112, 112, 3), 60 + 60 * person, np.uint8)
    return simplejpeg.encode_jpeg(picture, quality=90, colorsubsampling="444")


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packs ``train`` (18 pairs), ``other`` (9), ``evaluation`` (12), and
    ``strangers`` (12), people to evaluate on whom nothing is trained with."""
    root = tmp_path_factory.mktemp("colours")
    make(root / "train", 18, "train")
    make(root / "other", 9, "train", ["Cy", "Di", "Ed"])
    make(root / "evaluation", 12, "evaluation")
    make(root / "strangers", 12, "evaluation", ["Flo", "Gus", "Hal"])
    return root


def make(folder: Path, count: int, purpose: str, names: Sequence[str] = NAMES) -> Pack:
    per_photograph = len(KINDS) if purpose == "evaluation" else 1
    people = [i // per_photograph % 3 for i in range(count)]
    pairs = (EncodedPair(plain(p), plain(p), p, i % 2) for i, p in enumerate(people))
    photographs = count // per_photograph
    about = {"purpose": purpose, "photographs": photographs}
    return write_pack(folder, pairs, count, identities=names, kinds=KINDS, **about)
