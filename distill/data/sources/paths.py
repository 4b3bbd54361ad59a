"""Files that are opened, and paths that a data set names and nobody vouches for."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NoReturn

from distill.data.images import Unusable
from distill.errors import UserError

MAX_PATH_CHARACTERS = 4096
MAX_FILES = 1_000_000
"""Files that one pattern may stand for."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file, and how many bytes it has.

    Raises:
        UserError: it is missing, may not be read or is no regular file.
    """
    try:
        # Without waiting: a named pipe that nobody writes to would never open.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise UserError(f"{path}: {fault.strerror}", fix="give a file that can be read") from None
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise UserError(f"{path}: not a regular file", fix="give a file that can be read")
        yield file, state.st_size


def entries_of(folder: str | Path, wanted: str = "a folder") -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by the bytes of their names, the same in any locale.

    Patterns (`Path.glob`) pass over a folder that may not be read, and data would be missing.

    Raises:
        UserError: it is missing, is no folder (``wanted`` says what to give) or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder", fix=f"give {wanted}") from None
    except NotADirectoryError:
        raise UserError(f"{folder}: not a folder", fix=f"give {wanted}") from None
    except OSError as fault:
        refuse_unreadable(fault)


def refuse_unreadable(fault: OSError) -> NoReturn:
    """Refuse to work on a part of what was named; also `os.walk`'s ``onerror``.

    Raises:
        UserError: names the folder.
    """
    raise UserError(
        f"{fault.filename}: {fault.strerror}", fix="make it readable, or take it out"
    ) from None


def followed(root: str, named: str) -> str:
    """The path of the file that a data set calls ``named``, which must lie below ``root``.

    Links are followed as long as they lead to somewhere below ``root``.

    Args:
        root: a folder, without links in its path (as `os.path.realpath` gives it).
        named: a path relative to it, or an absolute one.

    Raises:
        Unusable: it lies elsewhere, is no path at all, or goes through a link to itself.
    """
    _check_path(named)
    try:
        path = os.path.realpath(os.path.join(root, named))  # noqa: PTH118
    except OSError as fault:  # a name longer than there can be
        raise Unusable(f"not a path: {named[:80]!r} ({fault.strerror})") from None
    _check_inside(root, path, named)
    # Behind a link to itself realpath takes ".." from the text and follows no further link.
    if os.path.realpath(path) != path:
        raise Unusable(f"goes through a link to itself: {named[:200]!r}")
    return path


def _check_path(named: str) -> None:
    if not named or "\0" in named or len(named) > MAX_PATH_CHARACTERS:
        raise Unusable(f"not a path: {named[:80]!r}")


def _check_inside(root: str, path: str, named: str) -> None:
    if not path.startswith(root.rstrip("/") + "/"):
        raise Unusable(f"leads out of the folder of the data: {named[:200]!r}")


class Below:
    """`followed` for many names: a folder is looked at once, in place of every file in it.

    Links in the path of a folder are followed once, and its listing tells which of its entries are
    links; only those are followed one by one. On a network file system to ask of each of tens of
    millions of files takes hours. What is found says nothing of links that are made later, or of
    names that a file system takes for another (as large letters for small ones): read it by
    `read_file` with ``follow=False``.

    Args:
        root: as that of `followed`.
    """

    held = 1 << 20
    """Folders and names of links that are remembered at most: some hundred bytes each."""

    def __init__(self, root: str) -> None:
        self.root, self._inside = root, root.rstrip("/") + "/"
        self._folders: dict[str, tuple[str, frozenset[str]]] = {}
        self._room = self.held

    def __call__(self, named: str) -> str:
        """As `followed` (``root``, ``named``).

        Raises:
            Unusable: likewise.
        """
        folder, slash, name = named.rpartition("/")
        if name in ("", ".", ".."):
            return followed(self.root, named)
        _check_path(named)
        path, links = self._folders.get(folder + slash) or self._look(folder + slash)
        return f"{path}/{name}" if path and name not in links else followed(self.root, named)

    def origin(self, path: str) -> str:
        """What lies below ``root`` by its path from there."""
        return path[len(self._inside) :]

    def _look(self, folder: str) -> tuple[str, frozenset[str]]:
        """A folder's path without links, and the links in it; no path where each is to be asked."""
        path, links = "", frozenset[str]()
        with suppress(OSError):  # not all that may be entered may be listed
            real = os.path.realpath(os.path.join(self.root, folder))  # noqa: PTH118
            if f"{real}/".startswith(self._inside) and os.path.realpath(real) == real:
                links = _links_in(real, self.held)
                path = real.rstrip("/") if len(links) < self.held else ""
        self._room -= 1 + len(links)
        if self._room < 0:
            self._folders.clear()
            self._room = self.held - 1 - len(links)
        self._folders[folder] = path, links
        return path, links


def _links_in(folder: str, most: int) -> frozenset[str]:
    """Names of the links in a folder, ``most`` of them where there are more; none of what is none.

    Raises:
        OSError: it may not be listed.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return frozenset(islice((each.name for each in entries if each.is_symlink()), most))
    return frozenset()


def files_of(path: str, ending: str) -> tuple[Path, ...]:
    """One file, all with an ending in a folder (or, if none, in the folders in it), or a pattern's.

    Raises:
        UserError: none there, or one is missing or empty, or a folder cannot be read.
    """
    here = Path(path)
    if here.is_dir():
        found = _ending_with(ending, here) or [
            file
            for folder in filter(is_folder, entries_of(here))
            for file in _ending_with(ending, folder.path)
        ]
        found.sort(key=os.fsencode)
    else:
        found = [here] if here.exists() else [Path(name) for name in expanded(path)]
    if not found:
        raise UserError(f"{path}: no {ending} in it", fix=f"give a folder of {ending} files")
    for file in found:
        with opened(file) as (_, size):
            if size == 0:
                raise UserError(f"{file}: empty (zero bytes)", fix="make it again, or take it out")
    return tuple(found)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; of a link to itself nothing is known."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _ending_with(ending: str, folder: str | Path) -> list[Path]:
    return [Path(entry) for entry in entries_of(folder) if entry.name.endswith(ending)]


def with_origins(files: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Files with their paths relative to the folder that holds them all, ``/`` between parts."""
    top = Path(os.path.commonpath([file.parent.absolute() for file in files]))
    for file in files:
        yield file, file.absolute().relative_to(top).as_posix()


def name_of(files: tuple[Path, ...]) -> str:
    """What the manifest says of files, without an absolute path."""
    first = files[0].resolve()
    more = f" and {len(files) - 1} more" if files[1:] else ""
    return f"{first.parent.name}/{first.name}{more}"


def expanded(pattern: str) -> list[str]:
    """What braces stand for: ``a-{00..12}.tar`` and ``{x,y}.tar``, in this order.

    Raises:
        UserError: for more than `MAX_FILES`.
    """
    found = [pattern]
    while match := _BRACES.search(found[0]):
        choices = _choices(match[1], pattern)
        if len(choices) * len(found) > MAX_FILES:
            raise UserError(f"{pattern}: more than {MAX_FILES} files", fix="name fewer")
        parts = (_BRACES.split(name, maxsplit=1) for name in found)
        found = [before + choice + after for before, _, after in parts for choice in choices]
    return found


def _choices(inside: str, pattern: str) -> list[str]:
    """The choices of one pair of braces."""
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",")
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MAX_FILES:
        raise UserError(f"{pattern}: {inside} is no range of at most {MAX_FILES}", fix="mend it")
    return [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
