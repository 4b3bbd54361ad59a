"""Weights where they are stored, in a checkpoint or an exported file, to be read in pieces."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from distill import console
from distill.checkpoint.arcface import FIXED_SCALE, HEAD, is_arcface, model_settings, own_name
from distill.checkpoint.find import Found, latest_verified, newest_told, verified
from distill.checkpoint.manifest import MANIFEST, Part
from distill.checkpoint.reader import Place, Reader
from distill.collectives import together
from distill.engine_parts.fragments import WEIGHT
from distill.errors import UserError

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from distill.ranks import Ranks

EXPORTED, EXPORTED_WITH_NAMES_APART = "pairdistill-weights-1", "pairdistill-weights-2"
"""What the header of an exported file says that it is; in the second one identities are no part of
the header, which takes 100 MB, but a tensor."""
NAMES = "identities.json"
"""That tensor, the bytes of a list in JSON: as it stands in the header else."""
WHAT_TO_NAME = "name a run folder, a step-… folder in its checkpoints, or a model.safetensors"


@dataclass(frozen=True)
class Stored:
    """A trained network that has not been read yet.

    Attributes:
        reader: gives its tensors.
        keys: the reader's key of each parameter and buffer, by name.
        shapes: their shapes.
        config: configuration of the run, as plain data.
        identities: names of the C people, by label; none for a backbone without a head.
        unnamed: C, where there is a head and its people are known by their labels alone; else 0.
        data_digest: of the training packs and what was left out; empty where it is not known.
        step: optimizer steps made.
        run_id: the run.
        origin: file or folder.
    """

    reader: Reader
    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    config: dict[str, Any]
    identities: list[str]
    step: int
    run_id: str
    origin: Path
    unnamed: int = 0
    data_digest: str = ""

    @property
    def packs_digest(self) -> str:
        """Of the training packs, whatever was left out of them."""
        return self.data_digest.partition("~")[0]

    def without_head(self) -> Stored:
        """The backbone alone."""
        return replace(self, identities=[], unnamed=0)


def open_weights(
    path: Path, stack: ExitStack, ranks: Ranks | None = None, *, compared: bool = False
) -> Stored:
    """Find and verify weights; nothing but headers and, for the digests, bytes are read.

    Args:
        path: ``model.safetensors``, or a network of arcface_torch as safetensors; a ``step-…``
            folder; or a folder of those, or a run folder with ``checkpoints/`` in it: then the
            newest verified one.
        stack: closes the files.
        ranks: where given, all ranks call and share the reading.
        compared: whoever started this process has compared the digests of this very checkpoint;
            else each of its ranks reads all of it, at the same time.

    Raises:
        UserError: nothing there, or what is there is damaged; on all ranks.
    """
    if path.is_file():
        with nullcontext() if ranks is None else together():
            return _file(path, stack)
    if (path / MANIFEST).exists():
        return _checkpoint(verified(path, ranks, compared=compared), stack)
    for folder in _folders(path):
        found = latest_verified(folder, ranks)
        if found is not None:
            if ranks is None or ranks.is_first:
                _tell(found)
            return _checkpoint(found, stack)
    raise _nothing_there(path)


def open_headers(path: Path, stack: ExitStack) -> Stored:
    """As `open_weights`, by this process alone: no digest of tensors is compared, nothing is moved.

    Names, shapes and settings are those of the weights; damage of the tensors shows later.
    """
    if path.is_file():
        return _file(path, stack)
    if (path / MANIFEST).exists():
        return _checkpoint(verified(path, compared=True), stack)
    for folder in _folders(path):
        if (found := newest_told(folder)) is not None:
            return _checkpoint(found, stack)
    raise _nothing_there(path)


def _folders(path: Path) -> tuple[Path, Path]:
    """Where checkpoints may be: of a run, or right there."""
    return path / "checkpoints", path


def _nothing_there(path: Path) -> UserError:
    return UserError(f"{str(path)!r}: no checkpoint there", fix=WHAT_TO_NAME)


def _file(path: Path, stack: ExitStack) -> Stored:
    _refuse_pickle(path)
    return _exported(path, stack)


def _tell(found: Found) -> None:
    """Warn where the weights are not the newest that there were."""
    for damage in found.damage():
        console.warn(f"{damage}; taking that of step {found.step} in its place")


def _checkpoint(found: Found, stack: ExitStack) -> Stored:
    manifest = found.manifest
    shapes = {kind: manifest.shapes(kind) for kind in (WEIGHT, "buffer")}
    return Stored(
        reader=Reader.of(found, stack),
        keys={name: f"{kind}/{name}" for kind, named in shapes.items() for name in named},
        shapes={name: shape for named in shapes.values() for name, shape in named.items()},
        config=manifest.config,
        identities=manifest.identities,
        step=manifest.step,
        run_id=manifest.run_id,
        origin=found.path,
        data_digest=manifest.data_digest,
    )


def _refuse_pickle(path: Path) -> None:
    """A pickle is a program: somebody who trusts it turns it into safetensors once."""
    with path.open("rb") as file:
        begin = file.read(9)
    if begin[8:] == b"{":  # safetensors: before it any length of its header, so any bytes
        return
    if begin[:4] == b"PK\x03\x04" or begin[:1] == b"\x80":  # torch.save now, and before 1.6
        raise UserError(
            f"{str(path)!r} is a pickle of torch, which is not read here",
            fix="convert it once, as docs/arcface.md shows, and name the .safetensors",
        )


def _of_arcface(path: Path, reader: Reader, shapes: dict[str, tuple[int, ...]]) -> Stored:
    """A backbone of arcface_torch, with its head or alone, under our names."""
    model = model_settings(shapes)
    named = {name: own_name(name, str(model["name"])) for name in shapes} if model else {}
    unknown = [name for name, ours in named.items() if ours is None and name != FIXED_SCALE]
    if unknown or model is None:
        what = f"{unknown[0]!r} has no place here" if unknown else "its number of blocks is another"
        raise UserError(
            f"{str(path)!r} looks like a network of arcface_torch, but {what}",
            fix="give the state of one that docs/arcface.md names, r50, vit_b or mbf",
        )
    if FIXED_SCALE in shapes and not bool((reader.tensor(FIXED_SCALE) == 1).all()):
        raise UserError(
            f"{str(path)!r}: {FIXED_SCALE} is not one everywhere, as arcface_torch keeps it",
            fix="only networks that were trained with that scale fixed can be taken over",
        )
    keys = {ours: name for name, ours in named.items() if ours is not None}
    return Stored(
        reader=reader,
        keys=keys,
        shapes={ours: shapes[name] for ours, name in keys.items()},
        config={"model": model},
        identities=[],
        step=0,
        run_id="",
        origin=path,
        unnamed=shapes.get(HEAD, (0,))[0],
    )


def _exported(path: Path, stack: ExitStack) -> Stored:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read as safetensors: {error}", fix="export it again"
        ) from error
    places = {key: Place(path, key) for key in shapes}
    whole = {key: [Part(key, 0, shape[0] if shape else 1)] for key, shape in shapes.items()}
    reader = Reader(path, places, lambda key: whole.get(key, []), stack)
    if is_arcface(shapes):
        return _of_arcface(path, reader, shapes)
    if about.get("format") not in (EXPORTED, EXPORTED_WITH_NAMES_APART):
        raise UserError(
            f"{str(path)!r} holds no exported weights of this program",
            fix="name a model.safetensors written by a run",
        )
    apart = shapes.pop(NAMES, None) is not None
    names = reader.tensor(NAMES).numpy().tobytes() if apart else about["identities"]
    return Stored(
        reader=reader,
        keys={key: key for key in shapes},
        shapes=shapes,
        config=json.loads(about["config"]),
        identities=json.loads(names),
        step=int(about["step"]),
        run_id=about["run_id"],
        origin=path,
    )
