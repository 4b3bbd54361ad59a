"""The one face of a photograph, aligned; or why there is none. Worker processes run this."""

from __future__ import annotations

from pathlib import Path

from distill.data.detector import FaceDetector
from distill.data.faces import align, resized
from distill.data.images import Pixels, Unusable, decode
from distill.data.not_photographs import file_known_as
from distill.data.sources.folder import read_file


class NotOneFace(Exception):
    """A photograph in which not exactly one face was found; the text says how many."""


def face_or_reason(path: Path, detector: FaceDetector | None) -> Pixels | str:
    """The aligned face, as of `aligned_face`, or why there is none."""
    try:
        return aligned_face(path, detector)
    except NotOneFace as reason:
        return str(reason)
    except Unusable as fault:
        return f"unreadable: {file_known_as(path) or fault.reason}"


def aligned_face(path: Path, detector: FaceDetector | None) -> Pixels:
    """The one face of a photograph, (112, 112, 3) uint8 RGB.

    Args:
        path: the photograph.
        detector: finds the face; None where photographs are aligned faces already, which are only
            brought to size.

    Raises:
        Unusable: it cannot be read, or is not square where it should be aligned.
        NotOneFace: no face, or several.
    """
    rgb = decode(read_file(path))
    if detector is None:
        return resized(rgb)
    faces = detector.detect(rgb)
    if len(faces) != 1:
        raise NotOneFace(f"{len(faces)} faces" if faces else "no face")
    return align(rgb, faces[0].points)
