"""What worker processes do: photographs to aligned faces, then planned pairs to JPEGs.

Functions of their arguments alone, sent by name to spawned processes. A photograph at fault is a
result with a reason, never an exception.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg

from distill.data.beton import LayoutName
from distill.data.faces import AlignedFace
from distill.data.images import Pixels, Unusable, decode, encode_jpeg
from distill.data.keyed import keyed_rng
from distill.data.locate import LandmarkChoice, locate
from distill.data.pack.journal import Record
from distill.data.pack.spool import read_face, write_faces
from distill.data.pairs import PairPlan, kinds_of
from distill.data.second import TAKING_OTHER, SecondOptions, combine
from distill.data.second.online import face_row
from distill.data.sources import Sample


@dataclass(frozen=True)
class Prepared:
    """A photograph after the first round.

    Attributes:
        sha256: of `digest_of`; empty where it could not be read.
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
        kinds: the processings.
        how: how it was made.
        face: what making it while training asks for, 48 bytes.
    """

    first: bytes
    second: bytes
    kinds: tuple[str, ...]
    how: str
    face: bytes = b""


@dataclass(frozen=True)
class Recipe:
    """What the second round needs besides the plan of a pair.

    Attributes:
        spool: file of the aligned faces.
        seed: of everything random.
        quality: of the JPEGs.
        chances: of the processings.
        options: of the processings.
    """

    spool: str
    seed: int
    quality: int
    chances: Mapping[str, float]
    options: SecondOptions


class Looked(NamedTuple):
    """What the packer keeps of a photograph that a worker has looked at.

    Attributes:
        line: for the journal.
        face: whether there is a face, which is in the spool by now.
        sha256: of its content.
    """

    line: bytes
    face: bool
    sha256: bytes


def look(
    photographs: list[tuple[int, Sample]], landmarks: LandmarkChoice, spool: str, named: Path
) -> list[Looked]:
    """The first round for some photographs: their faces to the spool, in their rows.

    Args:
        photographs: with the rows of their faces.
        landmarks: where the points of a face come from.
        spool: file of the faces.
        named: what errors speak of.

    Raises:
        UserError: the disk is full.
    """
    prepared = [prepare(sample, landmarks) for _, sample in photographs]
    faces = zip(photographs, prepared, strict=True)
    write_faces(spool, ((n, p.face) for (n, _), p in faces if p.face is not None), named)
    return [_looked(s, p) for (_, s), p in zip(photographs, prepared, strict=True)]


def _looked(sample: Sample, prepared: Prepared) -> Looked:
    face, sha256 = prepared.face is not None, prepared.sha256
    record = Record(sample.origin, sample.identity, face, sha256, prepared.reason)
    return Looked(record.line(), face, sha256)


def prepare(sample: Sample, landmarks: LandmarkChoice) -> Prepared:
    """Reads a photograph, and finds and aligns the face in it."""
    digest = b""
    try:
        data = sample.read()
        digest = digest_of(data, sample, landmarks)
        rgb = decode(data)
        face, note = locate(rgb, landmarks, sample.landmarks)
    except Unusable as fault:
        return Prepared(digest, None, fault.reason)
    return Prepared(digest, face, note)


def digest_of(data: bytes, sample: Sample, landmarks: LandmarkChoice) -> bytes:
    """SHA-256 of all that a face is taken from: a photograph and, where they are used, its points.

    Several faces of one photograph, each with points of its own, have several.

    Args:
        data: of the photograph.
        sample: the same, with what the source says of it.
        landmarks: where the points of a face come from.
    """
    digest = hashlib.sha256(data)
    if sample.landmarks is not None and landmarks in ("auto", "source"):
        digest.update(np.asarray(sample.landmarks, "<f8").tobytes())
    return digest.digest()


def make_pair(plan: PairPlan, recipe: Recipe) -> PairJpegs:
    """Makes the second image of a planned pair and encodes both."""
    kinds = kinds_of(plan, recipe.seed, recipe.chances)
    face, other = read_face(recipe.spool, plan.first.row), None
    if plan.other is not None and not set(kinds).isdisjoint(TAKING_OTHER):
        other = read_face(recipe.spool, plan.other.row)
    second, how = combine(
        kinds,
        face,
        lambda kind: keyed_rng(recipe.seed, plan.first.origin, plan.repeat, kind),
        other=other,
        options=recipe.options,
    )
    first_jpeg, second_jpeg = (_encoded(rgb, recipe.quality) for rgb in (face.rgb, second))
    return PairJpegs(first_jpeg, second_jpeg, kinds, how)


def make_single(plan: PairPlan, recipe: Recipe) -> PairJpegs:
    """Encodes a photograph alone, with what is known of its face."""
    face = read_face(recipe.spool, plan.first.row)
    return PairJpegs(_encoded(face.rgb, recipe.quality), b"", (), "", face_row(face))


def _encoded(rgb: Pixels, quality: int) -> bytes:
    """A JPEG of the form that readers ask for. (Its pixels are not decoded again: the encoder
    says when it fails, and that was a seventh of all work.)
    """
    jpeg = encode_jpeg(rgb, quality)
    assert simplejpeg.decode_jpeg_header(jpeg) == (*rgb.shape[:2], "YCbCr", "444")
    return jpeg


MAKERS: dict[LayoutName, Callable[[PairPlan, Recipe], PairJpegs]] = {
    "pairs": make_pair,
    "singles": make_single,
}
"""The second round for each layout."""
