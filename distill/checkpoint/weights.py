"""Weights for evaluating, classifying and sharing: no optimizer, no ranks, no DeepSpeed."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.checkpoint.stored import EXPORTED, open_weights
from distill.checkpoint.tensor_file import TensorSpec, TensorWriter, library_order
from distill.errors import UserError
from distill.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from distill.checkpoint.stored import Stored


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

    The file appears at once; configuration and identities stand in its header. Bytes go from the
    mapped shards into it: no tensor is ever in memory, whatever the size of the head.

    Raises:
        UserError: the checkpoint is damaged, or ``out`` cannot be written.
    """
    partial = out.with_name(f".{out.name}.partial")
    with ExitStack() as stack:
        stored = open_weights(checkpoint, stack)
        try:
            partial.unlink(missing_ok=True)
            _write(stored, partial)
            partial.replace(out)
            sync_folder(out.parent)
        except OSError as error:
            raise UserError(
                f"{str(out)!r} cannot be written: {error}", fix="choose another place"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
    return out


def _write(stored: Stored, path: Path) -> None:
    """The tensors of ``stored`` by name, as the library would write them; a part after another."""
    reader = stored.reader
    dtypes = {name: reader.dtype(key) for name, key in stored.keys.items()}
    specs = [TensorSpec(name, dtypes[name], shape) for name, shape in stored.shapes.items()]
    ordered = library_order(specs)
    with TensorWriter(path, ordered, header_of(stored)) as writer:
        for spec in ordered:
            for part in reader.parts(stored.keys[spec.key]):
                writer.add(reader.tensor(part.key))


def header_of(stored: Stored | Weights) -> dict[str, str]:
    """What the header of an exported file says."""
    return {
        "format": EXPORTED,
        "config": json.dumps(stored.config),
        "identities": json.dumps(stored.identities),
        "step": str(stored.step),
        "run_id": stored.run_id,
    }
