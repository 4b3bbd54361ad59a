"""The photographs among the paths that a user names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from distill.data.not_photographs import folder_known_as, is_pack
from distill.data.sources.folder import IMAGE_ENDINGS, ending_of
from distill.data.sources.paths import refuse_unreadable
from distill.errors import UserError


class Photographs(Collection[Path]):
    """Paths of photographs, kept as text: a `Path` takes five times the memory.

    Args:
        names: the paths.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self._names)

    def __contains__(self, path: object) -> bool:
        return str(path) in self._names


def find_photographs(paths: Sequence[Path]) -> list[Path]:
    """All of `photographs_at`, in a list."""
    return list(photographs_at(paths))


def photographs_at(paths: Sequence[Path], others: Counter[str] | None = None) -> Photographs:
    """The photographs among ``paths``: files as they are named, folders with all images below them.

    Files inside folders count by their ending; hidden ones, and links to folders, are left out.

    Args:
        paths: files and folders.
        others: counts the endings, lower case, of the files in folders that are no photographs.

    Raises:
        UserError: a folder without any image, a pack, or a folder that cannot be read.
    """
    found: list[str] = []
    others = Counter() if others is None else others
    for path in paths:
        inside = _images_below(path, others) if path.is_dir() else [str(path)]
        if not inside or is_pack(path):
            raise _without_photographs(path)
        found += inside
    return Photographs(found)


def _without_photographs(folder: Path) -> UserError:
    what, remedy = folder_known_as(folder)
    if what:
        return UserError(f"{folder}: {what}, no photographs in it", fix=remedy)
    endings = " ".join(sorted(IMAGE_ENDINGS))
    return UserError(f"{folder}: no photographs in it", fix=f"it takes files like {endings}")


def _images_below(folder: Path, others: Counter[str]) -> list[str]:
    """Visible image files at any depth, in the order of the bytes of their paths.

    Raises:
        UserError: a folder cannot be read.
    """
    files: list[str] = []
    for here, folders, names in os.walk(folder, onerror=refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            if (ending := ending_of(name)) in IMAGE_ENDINGS:
                files.append(os.path.join(here, name))  # noqa: PTH118  (a path for each is slow)
            else:
                others[ending] += 1
    return sorted(files, key=os.fsencode)
