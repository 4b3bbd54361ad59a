"""Noise with the spectrum of a photograph, as pairs; and photographs of faces with landmarks.

Noise will not do for packing: whether a face wears glasses decides what is done with it.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from distill.data.detector import FaceDetector
from distill.data.faces import similarity, warped
from distill.data.images import Pixels, decode
from distill.data.pack_writer import EncodedPair
from distill.data.sources.openpeople import OpenPeopleSource
from distill.data.sources.table import POINT_COLUMNS

PEOPLE = 100
PHOTO_SIDE = 250
POINTS = ((90.0, 110.0), (155.0, 108.0), (122.0, 145.0), (97.0, 180.0), (150.0, 179.0))
"""Where the face of every photograph is, in pixels."""


def drawn(rng: np.random.Generator) -> bytes:
    """A JPEG of 112x112 pixels at quality 95, about 9 kB."""
    small = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    image = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="444")


def pairs(count: int) -> Iterator[EncodedPair]:
    """Pairs, the same ones at every call; a thousand different ones, over and over."""
    rng = np.random.default_rng(0)
    some = [(drawn(rng), drawn(rng)) for _ in range(min(count, 1000))]
    for i in range(count):
        yield EncodedPair(*some[i % len(some)], i % PEOPLE, 0)


def write_photographs(folder: Path, count: int) -> Path:
    """Photographs, and the CSV file that lists them; its path. No two are the same."""
    folder.mkdir()
    portraits, rng = faces(), np.random.default_rng(1)
    table = folder / "photographs.csv"
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "identity", *POINT_COLUMNS])
        for i in range(count):
            grain = rng.integers(0, 4, (PHOTO_SIDE, PHOTO_SIDE, 3), dtype=np.uint8)
            photograph = cv2.add(portraits[i % len(portraits)], grain)
            data = simplejpeg.encode_jpeg(photograph, quality=90, colorsubsampling="444")
            (folder / f"{i}.jpg").write_bytes(data)
            lines.writerow(
                [f"{i}.jpg", i % PEOPLE, *(value for point in POINTS for value in point)]
            )
    return table


@functools.cache
def faces() -> list[Pixels]:
    """The embedded people, with their landmarks at `POINTS`; detected once."""
    found = []
    for sample in OpenPeopleSource():
        rgb = decode(sample.read())
        if seen := FaceDetector().foremost(rgb):
            found.append(warped(rgb, similarity(seen[0].points, POINTS), PHOTO_SIDE))
    return found
