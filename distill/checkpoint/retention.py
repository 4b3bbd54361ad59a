"""Which checkpoints stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.checkpoint.folder import clear_leftovers, remove, whole_checkpoints
from distill.checkpoint.manifest import Damaged, Manifest
from distill.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def prune(
    folder: Path, *, keep_last: int, keep_best: int, best_metric: str, verified: Path
) -> list[Path]:
    """Remove what need not be kept; called by rank 0 alone, after a save.

    Kept are the newest ``keep_last``, the ``keep_best`` with the largest ``best_metric``, the one
    in ``verified``, and every folder whose manifest cannot be read (a resume says why).

    Returns:
        What was removed.
    """
    manifests = _readable(folder)
    keep = {verified.name, *list(manifests)[:keep_last]}
    keep |= set(_best(manifests, best_metric)[:keep_best])
    doomed = [folder / name for name in manifests if name not in keep]
    for path in doomed:
        remove(path)
    clear_leftovers(folder)
    return doomed


def _readable(folder: Path) -> dict[str, Manifest]:
    """Manifests by folder name, newest first."""
    manifests: dict[str, Manifest] = {}
    for path in whole_checkpoints(folder):
        try:
            manifests[path.name] = Manifest.read(path)
        except (Damaged, UserError):
            continue
    return manifests


def _best(manifests: dict[str, Manifest], metric: str) -> list[str]:
    """Folder names that have the metric, best first; of equals the newest."""
    values = {name: m.train_state.get("metrics", {}).get(metric) for name, m in manifests.items()}
    scored = [
        (value, manifests[name].step, name) for name, value in values.items() if value is not None
    ]
    return [name for _, _, name in sorted(scored, reverse=True)]
