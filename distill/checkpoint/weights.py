"""Weights for evaluating, classifying and sharing: no optimizer, no ranks, no DeepSpeed."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from distill.checkpoint.stored import EXPORTED, open_weights
from distill.errors import UserError
from distill.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path


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
    with ExitStack() as stack:
        stored = open_weights(path, stack)
        tensors = {name: stored.reader.whole(key) for name, key in stored.keys.items()}
    about = stored.identities, stored.step, stored.run_id, stored.origin
    return Weights(tensors, stored.config, *about)


def export_weights(checkpoint: Path, out: Path) -> Path:
    """Write the weights of a checkpoint as one safetensors file, whatever ZeRO stage it is of.

    The file appears at once; configuration and identities stand in its header.

    Raises:
        UserError: the checkpoint is damaged, or ``out`` cannot be written.
    """
    weights = load_weights(checkpoint)
    metadata = {
        "format": EXPORTED,
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
