"""Weights for evaluating, classifying and sharing: no optimizer, no ranks, no DeepSpeed."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from distill.checkpoint.find import Found, latest_verified, reason_against
from distill.checkpoint.manifest import MANIFEST, Manifest
from distill.checkpoint.reader import Reader
from distill.engine_parts.fragments import WEIGHT
from distill.errors import UserError
from distill.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

_KIND = "pairdistill-weights-1"


@dataclass(frozen=True)
class Weights:
    """A trained network.

    Attributes:
        tensors: parameters and buffers, float32 (and counters), for ``load_state_dict``.
        config: configuration of the run, as plain data.
        identities: names of the C people, by label.
        step: optimizer steps made.
        run_id: the run.
        origin: file or folder they were read from.
    """

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    identities: list[str]
    step: int
    run_id: str
    origin: Path


def load_weights(path: Path) -> Weights:
    """Read the weights of a run, a checkpoint, or an exported file.

    Args:
        path: ``model.safetensors``; a ``step-…`` folder; or a folder of those, or a run folder
            with ``checkpoints/`` in it: then the newest verified one.

    Raises:
        UserError: nothing there, or what is there is damaged.
    """
    if path.is_file():
        return _from_export(path)
    if (path / MANIFEST).exists():
        return _from_checkpoint(_verified(path))
    for folder in (path / "checkpoints", path):
        found = latest_verified(folder)
        if found is not None:
            return _from_checkpoint(found)
    raise UserError(
        f"{str(path)!r}: no checkpoint there",
        fix="name a run folder, a step-… folder in its checkpoints, or a model.safetensors",
    )


def export_weights(checkpoint: Path, out: Path) -> Path:
    """Write the weights of a checkpoint as one safetensors file, whatever ZeRO stage it is of.

    The file appears at once; configuration and identities stand in its header.

    Raises:
        UserError: the checkpoint is damaged, or ``out`` cannot be written.
    """
    weights = load_weights(checkpoint)
    metadata = {
        "format": _KIND,
        "config": json.dumps(weights.config),
        "identities": json.dumps(weights.identities),
        "step": str(weights.step),
        "run_id": weights.run_id,
    }
    partial = out.with_name(f".{out.name}.partial")
    try:
        save_file(weights.tensors, partial, metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(out)
        sync_folder(out.parent)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{str(out)!r} cannot be written: {error}", fix="choose another place"
        ) from error
    return out


def _verified(path: Path) -> Found:
    try:
        reason = reason_against(path)
    except OSError as error:
        reason = str(error)
    if reason:
        raise UserError(f"checkpoint {str(path)!r}: {reason}", fix="use an earlier checkpoint")
    return Found(path, Manifest.read(path))


def _from_checkpoint(found: Found) -> Weights:
    manifest = found.manifest
    with ExitStack() as stack:
        reader = Reader(found, stack)
        tensors = {
            name: reader.whole(f"{kind}/{name}")
            for kind in (WEIGHT, "buffer")
            for name in manifest.shapes(kind)
        }
    return Weights(
        tensors, manifest.config, manifest.identities, manifest.step, manifest.run_id, found.path
    )


def _from_export(path: Path) -> Weights:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != _KIND:
                raise UserError(
                    f"{str(path)!r} holds no exported weights of this program",
                    fix="name a model.safetensors written by a run",
                )
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read as safetensors: {error}", fix="export it again"
        ) from error
    config, identities = json.loads(about["config"]), json.loads(about["identities"])
    return Weights(tensors, config, identities, int(about["step"]), about["run_id"], path)
