"""What worker processes do: photographs to aligned faces, then planned pairs to JPEGs.

Functions of their arguments alone, sent by name to spawned processes. A photograph at fault is a
result with a reason, never an exception.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import simplejpeg

from distill.data.beton import LayoutName
from distill.data.faces import AlignedFace
from distill.data.images import Unusable, decode, encode_jpeg
from distill.data.keyed import keyed_rng
from distill.data.locate import LandmarkChoice, locate
from distill.data.pack.spool import read_face
from distill.data.pairs import PairPlan
from distill.data.second import SecondOptions, combine
from distill.data.second.online import face_row
from distill.data.sources import Sample


@dataclass(frozen=True)
class Prepared:
    """A photograph after the first round.

    Attributes:
        sha256: of its content; empty where it could not be read.
        face: the aligned face, or None.
        reason: why there is no face; else a note, or nothing.
    """

    sha256: bytes
    face: AlignedFace | None
    reason: str


@dataclass(frozen=True)
class PairJpegs:
    """A pair after the second round.

    Attributes:
        first: JPEG of the sample.
        second: JPEG of the processed image; empty where it is made while training.
        how: how it was made.
        face: what making it while training asks for, 48 bytes.
    """

    first: bytes
    second: bytes
    how: str
    face: bytes = b""


@dataclass(frozen=True)
class Recipe:
    """What the second round needs besides the plan of a pair.

    Attributes:
        spool: file of the aligned faces.
        seed: of everything random.
        quality: of the JPEGs.
        options: of the processings.
    """

    spool: str
    seed: int
    quality: int
    options: SecondOptions


def prepare(sample: Sample, landmarks: LandmarkChoice) -> Prepared:
    """Reads a photograph, and finds and aligns the face in it."""
    digest = b""
    try:
        data = sample.read()
        digest = hashlib.sha256(data).digest()
        rgb = decode(data)
        face, note = locate(rgb, landmarks, sample.landmarks)
    except Unusable as fault:
        return Prepared(digest, None, fault.reason)
    return Prepared(digest, face, note)


def make_pair(plan: PairPlan, recipe: Recipe) -> PairJpegs:
    """Makes the second image of a planned pair and encodes both."""
    face = read_face(recipe.spool, plan.first.row)
    other = read_face(recipe.spool, plan.other.row) if plan.other is not None else None
    second, how = combine(
        plan.kinds,
        face,
        lambda kind: keyed_rng(recipe.seed, plan.first.origin, plan.repeat, kind),
        other=other,
        options=recipe.options,
    )
    first_jpeg, second_jpeg = (encode_jpeg(rgb, recipe.quality) for rgb in (face.rgb, second))
    for jpeg in (first_jpeg, second_jpeg):
        assert simplejpeg.decode_jpeg(jpeg).shape == face.rgb.shape
    return PairJpegs(first_jpeg, second_jpeg, how)


def make_single(plan: PairPlan, recipe: Recipe) -> PairJpegs:
    """Encodes a photograph alone, with what is known of its face."""
    face = read_face(recipe.spool, plan.first.row)
    jpeg = encode_jpeg(face.rgb, recipe.quality)
    assert simplejpeg.decode_jpeg(jpeg).shape == face.rgb.shape
    return PairJpegs(jpeg, b"", "", face_row(face))


MAKERS: dict[LayoutName, Callable[[PairPlan, Recipe], PairJpegs]] = {
    "pairs": make_pair,
    "singles": make_single,
}
"""The second round for each layout."""
