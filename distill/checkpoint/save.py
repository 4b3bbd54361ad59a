"""Writing a checkpoint: all ranks write a shard, rank 0 makes the whole visible by one rename.

Every collective is reached by every rank whatever fails: a rank whose disk is full goes on taking
part in the gathering, and the failure is told to all at the next exchange. So a failed save raises
`SaveFailed` everywhere, hangs nowhere, and leaves what was there before.
"""

from __future__ import annotations

import shutil
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from distill import __version__
from distill.checkpoint import gather
from distill.checkpoint.find import reason_against
from distill.checkpoint.folder import (
    clear_leftovers,
    partial_path,
    publish,
    set_aside,
    step_name,
)
from distill.checkpoint.manifest import Damaged, FileEntry, Manifest, TensorEntry
from distill.checkpoint.plan import Plan, estimated_bytes, local_tensors, plan_shards
from distill.checkpoint.shard import ShardLabel, ShardWriter, verify_file
from distill.checkpoint.state import RunFacts, SaveFailed, Trainable, TrainState
from distill.checkpoint.tensor_file import specs_of
from distill.collectives import barrier, gather_objects
from distill.engine_parts.fragments import WEIGHT
from distill.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

_Result = TypeVar("_Result")
_LIBRARIES = ("torch", "deepspeed", "safetensors")


def save(folder: Path, engine: Trainable, state: TrainState, facts: RunFacts) -> Path:
    """Write the checkpoint of ``state.step`` into ``folder``; all ranks must call it.

    The files are written to a temporary folder, brought to the disk, read back against their
    digests, and renamed. A whole checkpoint of the same step that is there already is kept.

    Returns:
        The new folder, e.g. ``folder/step-00001000``.

    Raises:
        SaveFailed: no space, no permission, or what is read back differs; on all ranks.
    """
    target, partial = folder / step_name(state.step), partial_path(folder, state.step)
    ranks, plan = engine.ranks, plan_shards(engine)
    needed = estimated_bytes(plan, engine)
    if not _on_first(engine, target, lambda: _prepare(partial, target, needed)):
        return target
    label = ShardLabel(facts.run_id, state.step, ranks.rank, ranks.world_size)
    attempt = _Attempt()
    try:
        report = _write_shard(partial / label.file_name, engine, plan, label, attempt)
        reports = _exchange(target, attempt, report)
        _on_first(
            engine,
            target,
            lambda: _finish(_manifest(engine, state, facts, reports), partial, target),
        )
    except SaveFailed:
        if ranks.is_first:
            shutil.rmtree(partial, ignore_errors=True)
        barrier()  # no rank goes on to a folder that is still being cleared
        raise
    return target


class _Attempt:
    """Steps of which the first failure is remembered, and the later ones are left out."""

    def __init__(self) -> None:
        self.failure = ""

    def make(self, action: Callable[[], _Result]) -> _Result | None:
        """The result of ``action``, or None where it or an earlier one failed."""
        if self.failure:
            return None
        try:
            return action()
        except (OSError, Damaged, UserError) as error:
            self.failure = str(error) or type(error).__name__
            return None


def _exchange(target: Path, attempt: _Attempt, value: Any) -> list[Any]:
    """``value`` of every rank, or `SaveFailed` on every rank if one of them failed."""
    answers = gather_objects([attempt.failure, value])
    for rank, (failure, _) in enumerate(answers):
        if failure:
            raise SaveFailed(
                f"checkpoint {str(target)!r} could not be written on rank {rank}: {failure}",
                fix="free space or mend the permissions there; earlier checkpoints are untouched",
            )
    return [value for _, value in answers]


def _on_first(engine: Trainable, target: Path, action: Callable[[], Any]) -> Any:
    """What ``action`` returns on rank 0, on every rank."""
    attempt = _Attempt()
    value = attempt.make(action) if engine.ranks.is_first else None
    return _exchange(target, attempt, value)[0]


def _prepare(partial: Path, target: Path, needed: int) -> bool:
    """Make room for ``needed`` bytes; whether there is anything to write."""
    folder = target.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = clear_leftovers(folder)
    if partial in kept:  # others are in nobody's way
        raise kept[partial]
    if target.exists():
        if not reason_against(target):
            return False
        set_aside(target)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{needed / 1e6:.1f} MB are needed, and {free / 1e6:.1f} MB are free")
    partial.mkdir(mode=0o700)
    return True


def _write_shard(
    path: Path, engine: Trainable, plan: Plan, label: ShardLabel, attempt: _Attempt
) -> dict[str, Any]:
    """Write this rank's shard while taking part in the gathering of all; its manifest entries."""
    before, after = local_tensors(engine)
    specs = [*specs_of(before), *plan[label.rank], *specs_of(after)]
    writer = attempt.make(lambda: ShardWriter(path, specs, label))

    def add(tensor: torch.Tensor) -> None:
        if writer is not None:
            attempt.make(lambda: writer.add(tensor))

    for tensor in before.values():
        flat = tensor.reshape(-1)
        for start in range(0, len(flat), gather.WINDOW_ELEMENTS):
            add(flat[start : start + gather.WINDOW_ELEMENTS].cpu())
    held = gather.held_of(engine)
    for rank, gathered in enumerate(plan):
        for window in gather.windows_of_shard(engine, held, gathered, rank):
            if window is not None:
                add(window)
    for tensor in after.values():
        add(tensor)
    if writer is None:
        return {}
    attempt.make(writer.close)
    attempt.make(lambda: verify_file(path, writer.entry))
    tensors = {s.key: {"dtype": s.dtype_name, "shape": list(s.shape)} for s in specs}
    return {"file": path.name, "entry": writer.entry.model_dump(), "tensors": tensors}


def _manifest(
    engine: Trainable, state: TrainState, facts: RunFacts, reports: list[dict[str, Any]]
) -> Manifest:
    tensors = {
        key: TensorEntry(file=report["file"], **entry)
        for report in reports
        for key, entry in report["tensors"].items()
    }
    return Manifest(
        run_id=facts.run_id,
        step=state.step,
        world_size=engine.ranks.world_size,
        zero_stage=engine.zero_stage,
        moments=list(engine.moments),
        counters=engine.counters(),
        train_state=state.as_json(),
        config=dict(facts.config),
        identities=list(facts.identities),
        data_digest=facts.data_digest,
        files={report["file"]: FileEntry(**report["entry"]) for report in reports},
        tensors=tensors,
        ranges={
            f"{kind}/{name}": list(bounds)
            for kind in (WEIGHT, *engine.moments)
            for name, bounds in engine.class_bounds.items()
        },
        versions={"pairdistill": __version__} | {name: version(name) for name in _LIBRARIES},
        written=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    ).sealed()


def add_metrics(path: Path, state: TrainState) -> None:
    """Put the metrics of ``state`` into a whole checkpoint of its step; called by rank 0 alone.

    The manifest alone is replaced, by one rename: whoever reads or is killed finds either.

    Raises:
        UserError: it cannot be written, and is as it was.
    """
    manifest = Manifest.read(path)
    measured = manifest.train_state | {"metrics": state.as_json()["metrics"]}
    manifest.model_copy(update={"train_state": measured}).sealed().write(path)


def _finish(manifest: Manifest, partial: Path, target: Path) -> None:
    manifest.write(partial)
    Manifest.read(partial)
    publish(partial, target)
