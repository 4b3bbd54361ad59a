"""Whose folder is this? submitit loads a pickle from it: who can write there can run code as us.

`python -m launcher.guard FOLDER` is the first thing a job does, before anything is unpickled.
Standard library only, and quick.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from distill.errors import UserError


def check_private(folder: Path) -> None:
    """Refuse a folder, or anything of a job in it, that others own or may write to.

    Raises:
        UserError: the path, and whose it is.
        OSError: the folder is not there.
    """
    _check(folder, folder.lstat(), folder)
    for path in (*sorted(folder.glob("*")), *sorted(folder.glob("slurm/*.pkl"))):
        # A job may begin while `submit` still gives its files their names, and other ranks of a
        # node copy packs: what is gone by now is renamed or removed, by us, as the folder is ours.
        with suppress(FileNotFoundError):
            _check(path, path.lstat(), folder)


def _check(path: Path, found: os.stat_result, folder: Path) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise UserError(f"{str(path)!r}: a link, where only this program writes", fix="remove it")
    if found.st_uid != os.geteuid():
        raise UserError(
            f"{str(path)!r}: belongs to user {found.st_uid}, and this is user {os.geteuid()}",
            fix="choose another run.dir",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(
            f"{str(path)!r}: others may write there (mode {stat.S_IMODE(found.st_mode):o}),"
            " and so run code in the job",
            fix=f"chmod -R go-w {str(folder)!r}, after a look at what is in it",
        )


if __name__ == "__main__":
    try:
        check_private(Path(sys.argv[1]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
