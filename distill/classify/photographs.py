"""The photographs among the paths that a user names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distill.data.not_photographs import folder_known_as, is_pack
from distill.data.sources.folder import IMAGE_ENDINGS, is_image, other_endings_of
from distill.data.sources.paths import refuse_unreadable
from distill.errors import UserError


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
