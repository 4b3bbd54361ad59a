"""Names in a folder of checkpoints, and how they change.

    step-00001000/            a whole checkpoint: it came here by one rename
    step-00002000.corrupt/    set aside when a resume found it damaged; for a person to look at
    .partial-step-00003000/   being written, or left by a process that was killed
    .removing-step-00000500/  being removed

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
_LEFTOVER = re.compile(r"\.(partial|removing)-step-\d{8,}", re.ASCII)


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
    target = path.with_name(f"{path.name}.corrupt")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.corrupt-{number}")
    path.rename(target)
    sync_folder(path.parent)
    return target


def publish(partial: Path, final: Path) -> None:
    """Make a written checkpoint visible, at once and for good."""
    sync_folder(partial)
    partial.rename(final)
    sync_folder(final.parent)


def remove(path: Path) -> None:
    """Remove a checkpoint; a kill half-way leaves nothing that looks like one."""
    assert _WHOLE.fullmatch(path.name), path
    assert not path.is_symlink(), path
    doomed = path.with_name(f".removing-{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left; the lock of the run keeps others from writing here."""
    for path in _real_folders(folder, _LEFTOVER):
        shutil.rmtree(path)
