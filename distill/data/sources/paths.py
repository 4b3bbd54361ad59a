"""Files that are opened, and paths that a data set names and nobody vouches for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from distill.data.images import Unusable
from distill.errors import UserError

MAX_PATH_CHARACTERS = 4096


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


def below(root: Path, named: str) -> Path:
    """The file that a data set calls ``named``, which must lie below ``root``.

    Links are followed as long as they lead to somewhere below ``root``.

    Raises:
        Unusable: it lies elsewhere, or is no path at all.
    """
    if not named or "\0" in named or len(named) > MAX_PATH_CHARACTERS:
        raise Unusable(f"not a path: {named[:80]!r}")
    top = root.resolve()
    try:
        path = (top / named).resolve()
    except (OSError, RuntimeError) as fault:  # a loop of links, a name longer than there can be
        raise Unusable(f"not a path: {named[:80]!r} ({fault})") from None
    if not path.is_relative_to(top):
        raise Unusable(f"leads out of the folder of the data: {named[:200]!r}")
    return path
