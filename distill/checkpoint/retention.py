"""Which checkpoints stay."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.checkpoint.folder import clear_leftovers, remove, whole_checkpoints
from distill.checkpoint.manifest import MANIFEST, MISSING, Damaged, Manifest
from distill.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


class Kept(NamedTuple):
    """What of a manifest says whether its checkpoint stays; its names and tensors are let go."""

    step: int
    metrics: dict[str, Any]


def prune(
    folder: Path, *, keep_last: int, keep_best: int, best_metric: str, verified: Path
) -> list[Path]:
    """Remove what need not be kept; called by rank 0 alone, after a save.

    Kept are the newest ``keep_last``, the ``keep_best`` with the largest ``best_metric``, the one
    in ``verified``, and every folder whose manifest cannot be read (a resume says why).

    Returns:
        What was removed.

    Raises:
        OSError: one of them could not be; the others are. It is not told of again.
    """
    found = _readable(folder)
    keep = {verified.name, *list(found)[:keep_last]}
    keep |= set(_best(found, best_metric)[:keep_best])
    doomed = [folder / name for name in found if name not in keep]
    clear_leftovers(folder)
    failed = []
    for path in doomed:
        try:
            remove(path)
        except OSError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return doomed


def _readable(folder: Path) -> dict[str, Kept]:
    """What whole manifests say, by folder name, newest first."""
    found: dict[str, Kept] = {}
    for path in whole_checkpoints(folder):
        try:
            found[path.name] = _read(path, _state_of(path / MANIFEST))
        except (Damaged, UserError):
            continue
    return found


def _state_of(file: Path) -> tuple[int, ...]:
    """What the file system changes with every change of a file; nobody can set the last of them.

    Raises:
        Damaged: it is missing.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # opened, since NFS then looks anew
    except FileNotFoundError:
        raise Damaged(f"{file.name} {MISSING}") from None
    try:
        state = os.fstat(handle)
    finally:
        os.close(handle)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


@cache
def _read(path: Path, state: tuple[int, ...]) -> Kept:
    """Read once for each ``state`` of the file: a manifest of millions of names takes a second.

    Raises:
        Damaged: altered (and read anew the next time).
        UserError: of another format.
    """
    manifest = Manifest.read(path)
    return Kept(manifest.step, manifest.train_state.get("metrics", {}))


def _best(found: dict[str, Kept], metric: str) -> list[str]:
    """Folder names that have the metric, best first; of equals the newest."""
    values = {name: kept.metrics.get(metric) for name, kept in found.items()}
    scored = [
        (value, found[name].step, name) for name, value in values.items() if value is not None
    ]
    return [name for _, _, name in sorted(scored, reverse=True)]
