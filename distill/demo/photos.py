"""A few held-out photographs as files, for the trained classifier to name."""

from __future__ import annotations

from pathlib import Path

from distill.data.images import Pixels, encode_jpeg
from distill.data.manifest import Pack
from distill.data.pairs_table import pair_rows
from distill.data.sources import Sample, Source
from distill.files import disk_errors, write_whole

PHOTOGRAPHS = 4


def write_photographs(source: Source, evaluation: Pack, folder: Path) -> list[Path]:
    """Write one held-out photograph of each of the first people, and one picture without a face.

    Args:
        source: what the packs were made from.
        evaluation: the held-out pack; its people and photographs decide which are taken.
        folder: created if need be.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    held_out = _one_of_each_person(evaluation)[:PHOTOGRAPHS]
    samples: dict[str, Sample] = {sample.origin: sample for sample in source}
    paths = []
    for origin in held_out:
        paths.append(folder / origin.replace("/", "_"))
        write_whole(paths[-1], samples[origin].read())
    paths.append(folder / "no_face.jpg")
    write_whole(paths[-1], encode_jpeg(_sunset(), 90))
    return paths


def _one_of_each_person(evaluation: Pack) -> list[str]:
    """Origins of held-out photographs, the first of each person."""
    first = {row.identity: row.first for row in reversed(list(pair_rows(evaluation)))}
    return [first[name] for name in sorted(first)]


def _sunset() -> Pixels:
    """A picture with nobody in it, (240, 320, 3)."""
    import numpy as np

    rows = np.linspace(0.0, 1.0, 240)[:, None, None]
    sky, sea = np.array([250.0, 150.0, 90.0]), np.array([40.0, 50.0, 110.0])
    return np.broadcast_to(sky + rows * (sea - sky), (240, 320, 3)).astype(np.uint8)
