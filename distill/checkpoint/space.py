"""Whether there is room for the checkpoints and weights of a run, found out before it starts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from distill.checkpoint.folder import clear_leftovers, step_name, whole_checkpoints
from distill.checkpoint.plan import estimated_bytes, estimated_weights_bytes, plan_shards
from distill.collectives import together
from distill.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.checkpoint.state import Trainable
    from distill.config.tree import CheckpointConfig


def bytes_to_come(folder: Path, engine: Trainable, keep: CheckpointConfig, total_steps: int) -> int:
    """Room that a run of ``total_steps`` will need for checkpoints beyond those there, and weights.

    As many checkpoints as are kept, and one more: a new one is whole before an old one goes, which
    leaves room for the weights at the end. But no more than are made, so that a run may be told to
    keep all, and none where the last step is saved: weights then need room of their own.
    """
    made = 1 + (max(total_steps - 1, 0) // keep.every_steps if keep.every_steps else 0)
    kept, saved = keep.keep_last + keep.keep_best, whole_checkpoints(folder)
    if saved and saved[0].name == step_name(total_steps):
        return estimated_weights_bytes(engine)
    missing = max(1, min(kept + 1, made) - len(saved))
    checkpoints = missing * estimated_bytes(plan_shards(engine), engine)
    return checkpoints if made > kept else checkpoints + estimated_weights_bytes(engine)


def check_space(folder: Path, engine: Trainable, keep: CheckpointConfig, total_steps: int) -> None:
    """Refuse to start where checkpoints and weights would not fit; all ranks must call it.

    What killed saves left is removed first, as the next save would: its room is free.

    Args:
        folder: of the checkpoints, locked; the one above it must be there.
        engine: what will be saved.
        keep: how many are kept.
        total_steps: optimizer steps of the whole run.

    Raises:
        UserError: what is needed and what is free, on all ranks.
    """
    needed = bytes_to_come(folder, engine, keep, total_steps)
    with together():
        if engine.ranks.is_first:
            unremoved = [path.name for path in clear_leftovers(folder)]
            check_room(folder, needed, shutil.disk_usage(folder.parent).free, unremoved)


def check_room(
    folder: Path, needed: int, free: int, unremoved: Sequence[str] = (), where: str = ""
) -> None:
    """Refuse a disk without room.

    Args:
        folder: of the checkpoints.
        needed: `bytes_to_come`.
        free: bytes of the disk.
        unremoved: names of what killed saves left there and nobody can remove.
        where: by whose account so much is free, if that is to be told.

    Raises:
        UserError: ``needed`` is more than ``free``.
    """
    if free < needed:
        kept = f" ({', '.join(unremoved)} cannot be removed)" if unremoved else ""
        raise UserError(
            f"{str(folder)!r}: checkpoints and weights need {_size(needed)}, and {_size(free)}"
            f" are free{where}{kept}",
            fix="free some space, lower checkpoint.keep_last or checkpoint.keep_best, or choose"
            " another run.dir",
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
