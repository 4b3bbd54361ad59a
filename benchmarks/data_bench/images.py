"""Noise with the spectrum of a photograph, as pairs and as photographs with landmarks."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from distill.data.pack_writer import EncodedPair
from distill.data.sources.table import POINT_COLUMNS

PEOPLE = 100
PHOTO_SIDE = 250
POINTS = ((90.0, 110.0), (155.0, 108.0), (122.0, 145.0), (97.0, 180.0), (150.0, 179.0))
"""Where the face of every photograph is, in pixels."""


def drawn(rng: np.random.Generator, side: int, quality: int) -> bytes:
    """A JPEG: about 9 kB at 112 pixels and quality 95, 20 kB at 250 and 90."""
    small = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling="444")


def pairs(count: int) -> Iterator[EncodedPair]:
    """Pairs, the same ones at every call; a thousand different ones, over and over."""
    rng = np.random.default_rng(0)
    some = [(drawn(rng, 112, 95), drawn(rng, 112, 95)) for _ in range(min(count, 1000))]
    for i in range(count):
        yield EncodedPair(*some[i % len(some)], i % PEOPLE, 0)


def write_photographs(folder: Path, count: int) -> Path:
    """Photographs, and the CSV file that lists them; its path."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    table = folder / "photographs.csv"
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "identity", *POINT_COLUMNS])
        for i in range(count):
            (folder / f"{i}.jpg").write_bytes(drawn(rng, PHOTO_SIDE, 90))
            lines.writerow(
                [f"{i}.jpg", i % PEOPLE, *(value for point in POINTS for value in point)]
            )
    return table
