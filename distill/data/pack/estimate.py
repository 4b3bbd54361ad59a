"""What packing would take, from a sample of the photographs: nothing is written."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from distill.data.pack.options import PackOptions
from distill.data.pack.spool import ROW, write_faces
from distill.data.pack.work import MAKERS, Recipe, prepare
from distill.data.pairs import Photo, Photos, single_photos, training_pairs
from distill.data.sources import Source
from distill.data.workers import single_threaded
from distill.errors import UserError

SAMPLE = 100
"""Photographs looked at, the first ones: a source may not know where its others are."""


_ENTRY_BYTES = 56 + 2 * 24
"""Of a pair in the metadata and in the table."""


class Estimate(NamedTuple):
    """What packing would take.

    Attributes:
        photographs: in the source.
        sampled: of them looked at.
        usable: share of those that can be used, 0 .. 1.
        pairs: that would be made.
        pack_bytes: size of the pack.
        scratch_bytes: beside the pack while packing.
        seconds: of all processes together, divided among them.
        reasons: why photographs of the sample cannot be used, with their number.
    """

    photographs: int
    sampled: int
    usable: float
    pairs: int
    pack_bytes: int
    scratch_bytes: int
    seconds: float
    reasons: dict[str, int]


def estimate(source: Source, options: PackOptions) -> Estimate:
    """Prepares a sample of the photographs, makes their pairs, and extends both to all.

    Raises:
        UserError: none of the sample can be used.
    """
    return _extended(source, options, _sampled(source, options))


class _Sampled(NamedTuple):
    """What was seen of some photographs.

    Attributes:
        photographs: how many they are.
        usable: of them.
        photograph_seconds: of looking at one.
        pair_bytes: of the two images of a pair.
        pair_seconds: of making a pair.
        reasons: why the others cannot be used, with their number.
    """

    photographs: int
    usable: int
    photograph_seconds: float
    pair_bytes: float
    pair_seconds: float
    reasons: dict[str, int]


def _sampled(source: Source, options: PackOptions) -> _Sampled:
    """The first photographs, looked at, and their pairs, made."""
    reasons: Counter[str] = Counter()
    faces: list[Photo] = []
    labels: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder, single_threaded():
        path = Path(folder) / "faces"
        samples = list(islice(source, SAMPLE))
        if samples:  # models are loaded once, not once a photograph
            prepare(samples[0], options.landmarks_from())
        path.touch()
        began = time.perf_counter()
        for row, sample in enumerate(samples):
            prepared = prepare(sample, options.landmarks_from())
            if prepared.face is None:
                reasons[prepared.reason] += 1
                continue
            write_faces(str(path), [(row, prepared.face)], path)
            label = labels.setdefault(sample.identity, len(labels))
            faces.append(Photo(row, sample.origin, label, ""))
        looking = time.perf_counter() - began
        if not faces:
            raise UserError(
                f"{source.name}: none of the first {len(samples)} photographs can be used"
                f" ({'; '.join(reasons)})",
                fix="give photographs with a visible face, or --aligned for aligned crops",
            )
        pair_bytes, pair_seconds = _pairs_of(Photos.of(faces), str(path), options)
    return _Sampled(
        photographs=len(samples),
        usable=len(faces),
        photograph_seconds=looking / len(samples),
        pair_bytes=pair_bytes,
        pair_seconds=pair_seconds,
        reasons=dict(reasons),
    )


def _pairs_of(faces: Photos, spool: str, options: PackOptions) -> tuple[float, float]:
    """Bytes and seconds of a pair, on average."""
    recipe = Recipe(spool, options.seed, options.quality, options.kinds, options.second_options())
    plans = list(
        single_photos(faces)
        if options.layout == "singles"
        else training_pairs(faces, options.seed, options.second_per_image)
    )
    make = MAKERS[options.layout]
    make(plans[0], recipe)
    began = time.perf_counter()
    made = [make(plan, recipe) for plan in plans]
    seconds = time.perf_counter() - began
    return sum(len(p.first) + len(p.second) for p in made) / len(made), seconds / len(made)


def _extended(source: Source, options: PackOptions, seen: _Sampled) -> Estimate:
    """The sample's figures for the whole source."""
    expected = source.expected
    count = expected if expected is not None else sum(1 for _ in source)
    share = seen.usable / seen.photographs
    held = round(count * share * options.holdout)
    pairs = round((count * share - held) * options.second_per_image) + held * len(options.kinds)
    seconds = count * seen.photograph_seconds + pairs * seen.pair_seconds
    return Estimate(
        photographs=count,
        sampled=seen.photographs,
        usable=share,
        pairs=pairs,
        pack_bytes=round(pairs * (seen.pair_bytes + _ENTRY_BYTES)),
        scratch_bytes=round(count * share * ROW.itemsize),
        seconds=seconds / options.processes(),
        reasons=seen.reasons,
    )
