"""Reading a checkpoint back, under any ZeRO stage and number of ranks."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from distill.checkpoint.state import RunFacts, Trainable, TrainState
from distill.engine_parts.fragments import WEIGHT
from distill.errors import UserError
from distill.ranks import together

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from distill.checkpoint.find import Found
    from distill.checkpoint.manifest import Manifest

_SHOWN = 3


def load(
    found: Found, engine: Trainable, facts: RunFacts, *, allow: Collection[str] = ()
) -> TrainState:
    """Put a verified checkpoint into ``engine``; all ranks must call it.

    Each rank maps the files and reads the elements it holds, so the ZeRO stage and the number of
    ranks may differ from those that wrote them. Random states come back where the number of ranks
    is the same.

    Args:
        found: what `latest_verified` returned.
        engine: a fresh engine of the same network and optimizer.
        facts: of the run that resumes; its ``run_id`` is not compared.
        allow: differences to accept: "data" (another training pack) or "identities" (renamed).

    Raises:
        UserError: another network, optimizer, set of people or training pack; the difference and
            the fix are named, on all ranks.
    """
    with together():
        check_same(found, engine, facts, allow)
        _read_into(found, engine)
    engine.finish_load(found.manifest.counters)
    return TrainState.from_json(found.manifest.train_state)


def check_same(
    found: Found, engine: Trainable, facts: RunFacts, allow: Collection[str] = ()
) -> None:
    """Refuse a checkpoint of something else.

    Raises:
        UserError: see `load`.
    """
    differences = list(_differences(found.manifest, engine, facts, allow))
    if differences:
        raise UserError(
            f"checkpoint {str(found.path)!r} is of another run: {'; '.join(differences)}",
            fix="use the settings and the pack it was made with, or another run.dir; run.accept"
            " lets another pack or other names pass",
        )


def _differences(
    manifest: Manifest, engine: Trainable, facts: RunFacts, allow: Collection[str]
) -> Iterator[str]:
    """What differs, each as "thing: there -> here"."""
    if manifest.classes != len(facts.identities):
        yield f"classes: {manifest.classes} there -> {len(facts.identities)} here"
    elif "identities" not in allow:
        yield from _label_differences(manifest.identities, list(facts.identities))
    if "data" not in allow and manifest.data_digest != facts.data_digest:
        yield f"training pack: {manifest.data_digest} there -> {facts.data_digest} here"
    for section in ("model", "head"):
        yield from _setting_differences(section, manifest.config, facts.config)
    if manifest.moments != list(engine.moments):
        yield f"optimizer state: {manifest.moments} there -> {list(engine.moments)} here"
    yield from _shape_differences(manifest, engine)


def _label_differences(there: list[str], here: list[str]) -> Iterator[str]:
    for label, (old, new) in enumerate(zip(there, here, strict=True)):
        if old != new:
            yield f"label {label}: {old!r} there -> {new!r} here"
            return


def _setting_differences(section: str, there: Any, here: Any) -> Iterator[str]:
    old, new = there.get(section, {}), here.get(section, {})
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{section}.{key}: {old.get(key)!r} there -> {new.get(key)!r} here"


def _shape_differences(manifest: Manifest, engine: Trainable) -> Iterator[str]:
    there = {
        key.removeprefix(f"{WEIGHT}/"): tuple(entry.shape)
        for key, entry in manifest.tensors.items()
        if key.startswith(f"{WEIGHT}/")
    }
    here = engine.shapes
    changed = [n for n in sorted(there.keys() | here.keys()) if there.get(n) != here.get(n)]
    for name in changed[:_SHOWN]:
        yield f"{name}: {there.get(name, 'absent')} there -> {here.get(name, 'absent')} here"
    if len(changed) > _SHOWN:
        yield f"{len(changed) - _SHOWN} more parameters"


@torch.no_grad()
def _read_into(found: Found, engine: Trainable) -> None:
    with ExitStack() as stack:
        reader = _Reader(found, stack)
        for kind in (WEIGHT, *engine.moments):
            for fragment in engine.fragments(kind):
                whole = reader.tensor(f"{kind}/{fragment.name}").view(-1)
                end = fragment.start + fragment.values.numel()
                fragment.values.copy_(whole[fragment.start : end])
        for name, buffer in engine.buffers.items():
            buffer.copy_(reader.tensor(f"buffer/{name}"))
        _restore_random_states(found.manifest, engine, reader)


class _Reader:
    """Tensors of a checkpoint; files are mapped, so only what is copied is read."""

    def __init__(self, found: Found, stack: ExitStack) -> None:
        self._found = found
        self._stack = stack
        self._files: dict[str, Any] = {}

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor, a view of the mapped file."""
        entry = self._found.manifest.tensors.get(key)
        path = self._found.path
        try:
            if entry is None:
                raise SafetensorError(f"{key} is not listed")
            if entry.file not in self._files:
                opened = safe_open(path / entry.file, "pt")
                self._files[entry.file] = self._stack.enter_context(opened)
            tensor: torch.Tensor = self._files[entry.file].get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"checkpoint {str(path)!r} cannot be read: {error}",
                fix="remove it, and the one before it is used",
            ) from error
        return tensor


def _restore_random_states(manifest: Manifest, engine: Trainable, reader: _Reader) -> None:
    """Generators of this rank; with another number of ranks nobody's states would fit."""
    if manifest.world_size != engine.ranks.world_size:
        return
    prefix = f"rng/{engine.ranks.rank}"
    torch.set_rng_state(reader.tensor(f"{prefix}/cpu").clone())
    if engine.device.type == "cuda" and f"{prefix}/cuda" in manifest.tensors:
        torch.cuda.set_rng_state(reader.tensor(f"{prefix}/cuda").clone(), engine.device)
