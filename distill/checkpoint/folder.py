"""Names in a folder of checkpoints, and how they change.

    step-00001000/            a whole checkpoint: it came here by one rename
    step-00002000.corrupt/    set aside when a resume found it damaged; for a person to look at
    .partial-step-00003000/   being written, or left by a process that was killed
    .removing-step-00000500/  being removed, or not to be removed: NFS keeps a file that is open

Only real folders with these names are ever renamed or removed, never a link or anything else.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from distill.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

_WHOLE = re.compile(r"step-(\d{8,})", re.ASCII)
_CORRUPT = re.compile(r"step-\d{8,}\.corrupt(-\d+)?", re.ASCII)
_LEFTOVER = re.compile(r"\.(partial|removing)-step-\d{8,}(-\d+)?", re.ASCII)


def step_name(step: int) -> str:
    """Name of the checkpoint of a step."""
    return f"step-{step:08d}"


def partial_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written before it is whole."""
    return folder / f".partial-{step_name(step)}"


def _real_folders(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]


def whole_checkpoints(folder: Path) -> list[Path]:
    """Folders of checkpoints, newest first; not verified."""
    found = _real_folders(folder, _WHOLE)
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")), reverse=True)


def corrupt_checkpoints(folder: Path) -> list[Path]:
    """Folders that were set aside."""
    return sorted(_real_folders(folder, _CORRUPT))


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint out of the way; nothing of it is lost."""
    target = _renamed(path, f"{path.name}.corrupt")
    sync_folder(path.parent)
    return target


def _renamed(path: Path, name: str) -> Path:
    """Rename to ``name``, or to ``name-2`` and so on where that is taken."""
    target, number = path.with_name(name), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{name}-{number}")
    return path.rename(target)


def publish(partial: Path, final: Path) -> None:
    """Make a written checkpoint visible, at once and for good."""
    sync_folder(partial)
    partial.rename(final)
    sync_folder(final.parent)


def remove(path: Path) -> None:
    """Remove a checkpoint; a kill half-way leaves nothing that looks like one.

    Raises:
        OSError: it is there still, or something of it, which `clear_leftovers` tries again.
    """
    assert _WHOLE.fullmatch(path.name), path
    assert not path.is_symlink(), path
    if (error := _error_removing(_renamed(path, f".removing-{path.name}"))) is not None:
        raise error


def clear_leftovers(folder: Path) -> dict[Path, OSError]:
    """Remove what killed processes left; the lock of the run keeps others from writing here.

    Returns:
        What cannot be removed, and why: it is in nobody's way, but for its room.
    """
    failed = {path: _error_removing(path) for path in _real_folders(folder, _LEFTOVER)}
    return {path: error for path, error in failed.items() if error is not None}


def _error_removing(path: Path) -> OSError | None:
    """Remove all of a folder that can be removed; what was wrong with the first file that stays."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        return error
    return None
