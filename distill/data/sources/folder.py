"""A folder of identities: ``root/PERSON/**/photograph``.

Names may hold anything a file system allows. Hidden files and folders are left out; links are
followed, but no folder is walked twice. Files are told from images by their ending alone: what is
inside is judged when it is read, so that a bad image has a row in `rejected.csv`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distill.data.images import Unusable
from distill.data.sources import Sample
from distill.errors import UserError

IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pnm"}
)
"""Endings of files that are tried, in any case of letters."""
MAX_FILE_BYTES = 256 * 2**20
"""Files larger than this are not read."""


@dataclass(frozen=True)
class FolderSource:
    """The photographs below a folder of identities, sorted by person and path.

    Attributes:
        root: the folder; each folder directly in it is a person.
        people: the people, sorted, with their photographs (at least one each).
        empty: names of the people's folders that hold no image.
        stray: image files directly in ``root``, which belong to nobody.
        other_endings: endings of the files that are not tried, lower case, with their numbers.
    """

    root: Path
    people: dict[str, list[Path]] = field(init=False)
    empty: list[str] = field(init=False)
    stray: list[Path] = field(init=False)
    other_endings: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        """Lists the folder once.

        Raises:
            UserError: the folder is missing, is no folder, cannot be read or holds no image.
        """
        people, empty, others = _people(Path(self.root))
        stray = [f for f in _entries(Path(self.root)) if f.is_file() and is_image(f)]
        for name, value in (
            ("root", Path(self.root)),
            ("people", people),
            ("empty", empty),
            ("stray", stray),
            ("other_endings", others),
        ):
            object.__setattr__(self, name, value)
        _check_not_empty(self)

    @property
    def name(self) -> str:
        """The folder's own name: the manifest holds no absolute path."""
        return f"folder:{self.root.resolve().name}"

    @property
    def expected(self) -> int:
        """How many photographs there are."""
        return len(self)

    def __iter__(self) -> Iterator[Sample]:
        for person, photographs in self.people.items():
            for path in photographs:
                origin = path.relative_to(self.root).as_posix()
                yield Sample(origin, person, partial(read_file, path))

    def __len__(self) -> int:
        return sum(map(len, self.people.values()))


def read_file(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        Unusable: it is gone, may not be read, is no regular file or is larger than
            `MAX_FILE_BYTES`.
    """
    try:
        if not path.exists():
            raise Unusable("no such file")
        if not path.is_file():
            raise Unusable("not a regular file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Unusable(f"file larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as fault:
        raise Unusable(f"cannot be read: {fault.strerror or fault}") from None


def _people(root: Path) -> tuple[dict[str, list[Path]], list[str], Counter[str]]:
    """People with their photographs, people without any, and the endings of all other files."""
    people: dict[str, list[Path]] = {}
    empty: list[str] = []
    others: Counter[str] = Counter()
    for folder in _entries(root):
        if not folder.is_dir():
            others.update(other_endings_of([folder]))
            continue
        files = list(_files_below(folder, root))
        images = [f for f in files if is_image(f)]
        others.update(other_endings_of(files))
        if images:
            people[folder.name] = images
        else:
            empty.append(folder.name)
    return people, empty, others


def _files_below(folder: Path, root: Path) -> Iterator[Path]:
    """Visible files at any depth, sorted; no folder is entered twice, nor ``root`` from below."""
    walked = {_identity(f) for f in (root.resolve(), *root.resolve().parents)}
    pending, found = [folder], list[Path]()
    while pending:
        here = pending.pop()
        if _identity(here) in walked:
            continue
        walked.add(_identity(here))
        entries = _entries(here)
        # Last in, first out: real folders are walked before links to them.
        pending += [e for e in entries if e.is_dir() and e.is_symlink()]
        pending += [e for e in reversed(entries) if e.is_dir() and not e.is_symlink()]
        found += [e for e in entries if not e.is_dir()]  # pipes and broken links are told of, too
    return iter(sorted(found, key=_order))


def _identity(folder: Path) -> tuple[int, int]:
    """What tells one folder from another, whatever path leads to it."""
    state = folder.stat()
    return state.st_dev, state.st_ino


def _entries(folder: Path) -> list[Path]:
    """Visible entries of a folder, sorted by the bytes of their names."""
    try:
        return sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=_order)
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder", fix="give a folder of people") from None
    except NotADirectoryError:
        raise UserError(f"{folder}: not a folder", fix="give a folder of people") from None
    except OSError as fault:
        raise UserError(f"{folder}: {fault.strerror}", fix="make it readable") from None


def _order(path: Path) -> bytes:
    """Sort key that is the same under every locale."""
    return os.fsencode(path)


def is_image(path: Path) -> bool:
    """Whether a file is tried, by its ending."""
    return path.suffix.lower() in IMAGE_ENDINGS


def other_endings_of(files: list[Path]) -> list[str]:
    """Endings, lower case, of the files that are not tried."""
    return [f.suffix.lower() for f in files if not is_image(f)]


def _check_not_empty(source: FolderSource) -> None:
    if source.people:
        return
    if source.stray:
        raise UserError(
            f"{source.root}: {len(source.stray)} images, but no folder for a person",
            fix="put each person's photographs into a folder of their own below it",
        )
    detail = f" ({len(source.empty)} empty folders)" if source.empty else ""
    raise UserError(
        f"{source.root}: no images in it{detail}",
        fix=f"give a folder of people's folders with images ({' '.join(sorted(IMAGE_ENDINGS))})",
    )
