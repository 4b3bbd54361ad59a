"""Weights for sharing, as one file: no optimizer, no ranks, no DeepSpeed."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from distill.checkpoint import gather
from distill.checkpoint.stored import EXPORTED, EXPORTED_WITH_NAMES_APART, NAMES, open_weights
from distill.checkpoint.tensor_file import (
    HeaderTooLong,
    TensorSpec,
    TensorWriter,
    library_order,
    specs_of,
)
from distill.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from distill.checkpoint.stored import Stored


def export_weights(
    checkpoint: Path,
    out: Path,
    *,
    compared: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Path:
    """Write the weights of a checkpoint as one safetensors file, whatever ZeRO stage it is of.

    The file appears at once; configuration and identities stand in its header, names that are too
    long for it in a tensor of bytes, `NAMES`. Bytes go from the mapped shards into it: no tensor of
    the network is ever in memory, whatever the size of the head.

    Args:
        checkpoint: as in `open_weights`.
        out: the file.
        compared: as in `open_weights`: of moments, most of the bytes, nothing is read then.
        advance: called after each part of 64 MiB or less.

    Raises:
        UserError: the checkpoint is damaged, or ``out`` cannot be written.
    """
    with ExitStack() as stack:
        stored = open_weights(checkpoint, stack, compared=compared)
        with whole_file(out, alone=True) as partial:
            _write(stored, partial, advance)
    return out


def _write(stored: Stored, path: Path, advance: Callable[[], None]) -> None:
    """The tensors of ``stored`` by name, as the library would write them; a part after another."""
    reader = stored.reader
    dtypes = {name: reader.dtype(key) for name, key in stored.keys.items()}
    ordered = library_order(
        [TensorSpec(name, dtypes[name], shape) for name, shape in stored.shapes.items()]
    )
    about = header_of(stored.config, stored.identities, stored.step, stored.run_id)
    names = torch.zeros(0, dtype=torch.uint8)
    try:
        opened = TensorWriter(path, ordered, about)
    except HeaderTooLong:
        names = torch.frombuffer(bytearray(about.pop("identities").encode()), dtype=torch.uint8)
        about["format"] = EXPORTED_WITH_NAMES_APART
        ordered = library_order([*ordered, *specs_of({NAMES: names})])
        opened = TensorWriter(path, ordered, about)
    with opened as writer:
        for spec in ordered:
            for piece in [names] if spec.key == NAMES else _pieces(stored, spec.key):
                writer.add(piece)
                advance()


def _pieces(stored: Stored, name: str) -> Iterator[torch.Tensor]:
    """The parts of a tensor, in their order."""
    for part in stored.reader.parts(stored.keys[name]):
        yield from torch.split(stored.reader.tensor(part.key).view(-1), gather.WINDOW_ELEMENTS)


def header_of(
    config: Mapping[str, Any], identities: Sequence[str], step: int, run_id: str
) -> dict[str, str]:
    """What the header of an exported file says; nobody is known to a backbone alone."""
    return {
        "format": EXPORTED,
        "config": json.dumps(config),
        "identities": json.dumps(identities),
        "step": str(step),
        "run_id": run_id,
    }
