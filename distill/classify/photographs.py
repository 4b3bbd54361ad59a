"""From the paths a user names to aligned faces."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distill.data.detector import FaceDetector
from distill.data.faces import align, resized
from distill.data.images import Pixels, decode
from distill.data.not_photographs import folder_known_as, is_pack
from distill.data.sources.folder import IMAGE_ENDINGS, is_image, other_endings_of, read_file
from distill.data.sources.paths import refuse_unreadable
from distill.errors import UserError


class NotOneFace(Exception):
    """A photograph in which not exactly one face was found; the text says how many."""


def find_photographs(paths: Sequence[Path], others: Counter[str] | None = None) -> list[Path]:
    """The photographs among ``paths``: files as they are named, folders with all images below them.

    Files inside folders count by their ending; hidden ones, and links to folders, are left out.

    Args:
        paths: files and folders.
        others: counts the endings, lower case, of the files in folders that are no photographs.

    Raises:
        UserError: a folder without any image, a pack, or a folder that cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        inside = images_below(path, others) if path.is_dir() else [path]
        if not inside or is_pack(path):
            raise _without_photographs(path)
        found += inside
    return found


def _without_photographs(folder: Path) -> UserError:
    what, remedy = folder_known_as(folder)
    if what:
        return UserError(f"{folder}: {what}, no photographs in it", fix=remedy)
    endings = " ".join(sorted(IMAGE_ENDINGS))
    return UserError(f"{folder}: no photographs in it", fix=f"it takes files like {endings}")


def images_below(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """Visible image files at any depth, in the order of the bytes of their paths.

    Raises:
        UserError: a folder cannot be read.
    """
    files: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(here, name) for name in names if not name.startswith(".")]
    if others is not None:
        others.update(other_endings_of(files))
    return sorted(filter(is_image, files), key=os.fsencode)


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
