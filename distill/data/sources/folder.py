"""A folder of identities: ``root/PERSON/**/photograph``.

Names may hold anything a file system allows. Hidden files and folders are left out; links are
followed, but no folder is walked twice. Files are told from images by their ending alone: what is
inside is judged when it is read, so that a bad image has a row in `rejected.csv`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distill.data.images import Unusable
from distill.data.sources import Sample
from distill.data.sources.paths import entries_of, is_folder
from distill.errors import UserError

IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pnm"}
)
"""Endings of files that are tried, in any case of letters."""
MAX_FILE_BYTES = 256 * 2**20
"""Files larger than this are not read."""


class Names:
    """Paths relative to one folder, in their order: as many bytes in memory as they have letters.

    Args:
        paths: as the file system has them.
    """

    def __init__(self, paths: Sequence[bytes]) -> None:
        self._count, self._joined = len(paths), b"\0".join(paths)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self._joined.split(b"\0")) if self._count else iter(())


@dataclass(frozen=True)
class FolderSource:
    """The photographs below a folder of identities, sorted by person and path.

    Attributes:
        root: the folder; each folder directly in it is a person.
        people: the people, sorted, with their photographs below ``root`` (at least one each).
        empty: names of the people's folders that hold no image.
        stray: image files directly in ``root``, which belong to nobody.
        other_endings: endings of the files that are not tried, lower case, with their numbers.
    """

    root: Path
    people: dict[str, Names] = field(init=False)
    empty: list[str] = field(init=False)
    stray: list[Path] = field(init=False)
    other_endings: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        """Lists the folder once.

        Raises:
            UserError: the folder is missing, is no folder, cannot be read or holds no image.
        """
        entries = _entries(self.root)
        people, empty, others = _people(Path(self.root), entries)
        files = [Path(entry.path) for entry in entries if not is_folder(entry)]
        for name, value in (
            ("root", Path(self.root)),
            ("people", people),
            ("empty", empty),
            ("stray", [f for f in files if f.is_file() and is_image(f)]),
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
            for origin in photographs:
                yield Sample(origin, person, partial(read_file, self.root / origin))

    def __len__(self) -> int:
        return sum(map(len, self.people.values()))


def read_file(named: str | Path, *, follow: bool = True) -> bytes:
    """The bytes of a regular file.

    Args:
        named: its path.
        follow: it may be a link to one.

    Raises:
        Unusable: it is gone, may not be read, is no regular file or is larger than
            `MAX_FILE_BYTES`.
    """
    path = Path(named)
    try:
        if not path.exists():
            raise Unusable("no such file")
        if not follow and path.is_symlink():
            raise Unusable("a link, which the listing of its folder did not tell")
        if not path.is_file():
            raise Unusable("not a regular file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Unusable(f"file larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as fault:
        raise Unusable(f"cannot be read: {fault.strerror or fault}") from None


def _people(
    root: Path, entries: Sequence[os.DirEntry[str]]
) -> tuple[dict[str, Names], list[str], Counter[str]]:
    """People with their photographs, people without any, and the endings of all other files."""
    people: dict[str, Names] = {}
    empty: list[str] = []
    others: Counter[str] = Counter()
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    start = len(os.path.join(root, ""))  # noqa: PTH118  (a name's first letter, behind the slash)
    for entry in entries:
        if not is_folder(entry):
            others[ending_of(entry.name)] += 1
            continue
        files = _files_below(entry.path, above)
        others.update(map(ending_of, files))
        images = [path for path in files if ending_of(path) in IMAGE_ENDINGS]
        if images:
            people[entry.name] = Names([os.fsencode(path[start:]) for path in images])
        else:
            empty.append(entry.name)
    for ending in IMAGE_ENDINGS:
        others.pop(ending, None)
    return people, empty, others


def _files_below(folder: str, above: Set[tuple[int, int]]) -> list[str]:
    """Visible files at any depth, sorted; no folder is entered twice, nor one that is ``above``.

    What is no folder is not asked for anything but its name: there may be many millions.
    """
    walked, pending, found = set(above), [folder], list[str]()
    while pending:
        here = pending.pop()
        if _identity(here) in walked:
            continue
        walked.add(_identity(here))
        folders: list[os.DirEntry[str]] = []
        for entry in _entries(here):  # pipes and broken links are told of, too
            if is_folder(entry):
                folders.append(entry)
            else:
                found.append(entry.path)
        # Last in, first out: real folders are walked before links to them.
        pending += [e.path for e in folders if e.is_symlink()]
        pending += [e.path for e in reversed(folders) if not e.is_symlink()]
    return sorted(found, key=os.fsencode)


def _identity(folder: str | Path) -> tuple[int, int]:
    """What tells one folder from another, whatever path leads to it."""
    state = os.stat(folder)  # noqa: PTH116
    return state.st_dev, state.st_ino


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Visible entries of a folder, sorted."""
    entries = entries_of(folder, "a folder of people")
    return [entry for entry in entries if not entry.name.startswith(".")]


def ending_of(path: str) -> str:
    """The ending of a file's name in small letters, with its dot; nothing where there is none."""
    ending = os.path.splitext(path)[1].lower()  # noqa: PTH122
    return "" if ending == "." else ending


def is_image(path: Path) -> bool:
    """Whether a file is tried, by its ending."""
    return ending_of(path.name) in IMAGE_ENDINGS


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
