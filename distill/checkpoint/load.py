"""Reading a checkpoint back, under any ZeRO stage and number of ranks."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from distill.checkpoint.reader import Reader
from distill.checkpoint.state import RunFacts, Trainable, TrainState
from distill.collectives import together
from distill.config.tree import HeadConfig, ModelConfig
from distill.engine_parts.fragments import WEIGHT
from distill.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pydantic import BaseModel

    from distill.checkpoint.find import Found
    from distill.checkpoint.manifest import Manifest

_SHOWN = 3
_MAY_DIFFER = {"placement", "sample_rate", "init_from", "init_head", "recompute", "compile"}
"""Settings of model and head that say where weights stand or came from, or what memory and time a
step takes, not what the weights are."""


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
    engine.finish_load(_counters(found.manifest, engine))
    return TrainState.from_json(found.manifest.train_state)


def _counters(manifest: Manifest, engine: Trainable) -> dict[str, float]:
    """The counters to go on with; all but those of the optimizer are the engine's own at first.

    Without fp16 a scale of 1 is stored. With fp16 it would lose small gradients for thousands of
    steps, and could not fall where one overflows.
    """
    if manifest.config.get("train", {}).get("precision") == "fp16":
        return manifest.counters
    return {**engine.counters(), "updates": manifest.counters["updates"]}


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
            fix="use the settings and the pack it was made with, or another run.dir;"
            ' run.accept = "data" lets another pack pass, "identities" other names, "all" both',
        )


def _differences(
    manifest: Manifest, engine: Trainable, facts: RunFacts, allow: Collection[str]
) -> Iterator[str]:
    """What differs, each as "thing: there -> here"."""
    if manifest.classes != len(facts.identities):
        yield f"classes: {manifest.classes} there -> {len(facts.identities)} here"
    elif "identities" not in allow:
        yield from _label_differences(manifest.identities, list(facts.identities))
    if "data" not in allow:
        yield from _pack_differences(manifest.data_digest, facts.data_digest)
    for section, default in (("model", ModelConfig()), ("head", HeadConfig())):
        yield from setting_differences(
            section, default, manifest.config, facts.config, but=_MAY_DIFFER
        )
    if manifest.moments != list(engine.moments):
        yield f"optimizer state: {manifest.moments} there -> {list(engine.moments)} here"
    yield from _shape_differences(manifest, engine)


def _pack_differences(there: str, here: str) -> Iterator[str]:
    """Of one pack or several, whose digests stand in their order, joined by ``+``.

    After a ``~`` may follow the digest of the pairs that are left out of them.
    """
    there, _, without_there = there.partition("~")
    here, _, without_here = here.partition("~")
    if without_there != without_here:
        was, now = without_there or "nothing", without_here or "nothing"
        yield f"photographs of data.exclude: {was} there -> {now} here"
    old, new = there.split("+"), here.split("+")
    if len(old) != len(new):
        yield f"training packs: {len(old)} there -> {len(new)} here"
    elif sorted(old) != sorted(new):
        for number, (was, now) in enumerate(zip(old, new, strict=True), 1):
            which = f"training pack {number} of {len(old)}" if len(old) > 1 else "training pack"
            if was != now:
                yield f"{which}: {was} there -> {now} here"
    elif old != new:
        order = ", ".join(str(old.index(pack) + 1) for pack in new)
        yield f"order of the training packs: 1 to {len(old)} there -> {order} here"


def _label_differences(there: list[str], here: list[str]) -> Iterator[str]:
    for label, (old, new) in enumerate(zip(there, here, strict=True)):
        if old != new:
            yield f"label {label}: {old!r} there -> {new!r} here"
            return


def setting_differences(
    section: str, default: BaseModel, there: Any, here: Any, *, but: Collection[str] = ()
) -> Iterator[str]:
    """What differs in a section, each as "section.field: there -> here".

    Args:
        section: its name.
        default: the section by default; what an older version did not have is as there.
        there: settings as plain data.
        here: others.
        but: fields that do not count.
    """
    known = default.model_dump(mode="json")
    old, new = ({**known, **config.get(section, {})} for config in (there, here))
    for key in sorted((old.keys() | new.keys()) - set(but)):
        if old.get(key) != new.get(key):
            yield f"{section}.{key}: {old.get(key)!r} there -> {new.get(key)!r} here"


def _shape_differences(manifest: Manifest, engine: Trainable) -> Iterator[str]:
    there, here = manifest.shapes(WEIGHT), engine.shapes
    changed = [n for n in sorted(there.keys() | here.keys()) if there.get(n) != here.get(n)]
    for name in changed[:_SHOWN]:
        yield f"{name}: {there.get(name, 'absent')} there -> {here.get(name, 'absent')} here"
    if len(changed) > _SHOWN:
        yield f"{len(changed) - _SHOWN} more parameters"


@torch.no_grad()
def _read_into(found: Found, engine: Trainable) -> None:
    with ExitStack() as stack:
        reader = Reader.of(found, stack)
        for kind in (WEIGHT, *engine.moments):
            for fragment in engine.fragments(kind):
                reader.copy_elements(f"{kind}/{fragment.name}", fragment.start, fragment.values)
        for name, buffer in engine.buffers.items():
            buffer.copy_(reader.tensor(f"buffer/{name}"))
        _restore_random_states(found.manifest, engine, reader)


def _restore_random_states(manifest: Manifest, engine: Trainable, reader: Reader) -> None:
    """Generators of this rank; with another number of ranks nobody's states would fit."""
    if manifest.world_size != engine.ranks.world_size:
        return
    prefix = f"rng/{engine.ranks.rank}"
    torch.set_rng_state(reader.tensor(f"{prefix}/cpu").clone())
    if engine.device.type == "cuda" and f"{prefix}/cuda" in manifest.tensors:
        torch.cuda.set_rng_state(reader.tensor(f"{prefix}/cuda").clone(), engine.device)
