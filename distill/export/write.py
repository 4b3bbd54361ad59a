"""Export a trained network: whole or not at all, and only after it has answered as the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from distill.errors import UserError
from distill.export import as_onnx, as_program, as_weights
from distill.export.facts import facts_of
from distill.export.network import as_taken, network_of, plainly, random_images
from distill.export.wanted import Form, Gives, Wanted
from distill.files import check_free, check_room_for, whole_files
from distill.finite import check_finite
from distill.trained import Trained, TrainedBackbone, restore, restore_backbone

CHECKED_IMAGES = 3
TOLERANCE = 1e-4
"""Of the largest number. What float32 in another order makes is a hundredth of it; what a wrong
epsilon of a normalisation, colours in another order or a missing layer make is more."""

_RUN: dict[Form, Callable[[Path, torch.Tensor], torch.Tensor]] = {
    Form.ONNX: as_onnx.run_onnx,
    Form.PT2: as_program.run_program,
    Form.SAFETENSORS: as_weights.run_weights,
}


class Exported(NamedTuple):
    """What was written.

    Attributes:
        facts: what the file says of itself.
        beside: files that were written with it: the names of the people by class, with
            probabilities; the weights of an `.onnx` that they do not fit into.
        difference: largest from the trained network, absolute; None where it was not checked.
        largest: number of the trained network, absolute.
    """

    facts: dict[str, str]
    beside: list[Path]
    difference: float | None
    largest: float


def export_network(
    weights: Path, out: Path, wanted: Wanted, *, overwrite: bool = False
) -> Exported:
    """Write a trained network for other programs, run the file, and compare.

    Args:
        weights: as in `restore`; for embeddings as in `restore_backbone`.
        out: the file; names of people go into a ``.identities.json`` beside it, weights that do
            not fit into an `.onnx` into a ``.data``.
        wanted: its form, input and output.
        overwrite: replace what is there.

    Raises:
        UserError: something is there; its folder is missing, full or not writable; packages are
            missing; no good weights; the file does not compute what the network does.
    """
    names = names_beside(out) if wanted.gives is Gives.PROBABILITIES else None
    data = as_onnx.data_beside(out) if wanted.form is Form.ONNX else None
    beside = [path for path in (names, data) if path is not None]
    check_room_for(out)
    for path in (out, *beside):
        check_free(path, overwrite=overwrite)
    if wanted.form is Form.ONNX:
        as_onnx.check_exporters()
    trained: TrainedBackbone = restore_backbone(weights) if names is None else restore(weights)
    expected = plainly(trained, random_images(CHECKED_IMAGES))
    check_finite(expected, "answers", "random images", weights)
    facts = facts_of(trained, wanted, names.name if names else None)
    with whole_files(*beside, out) as folder:
        file = folder / out.name
        _write(file, trained, wanted, facts)
        difference = _difference(file, expected, wanted)
        if names is not None:
            assert isinstance(trained, Trained), "restored with its head"
            listed = json.dumps(trained.identities, indent=0)
            (folder / names.name).write_text(listed, encoding="utf-8")
        written = [path for path in beside if (folder / path.name).exists()]
    for path in beside:
        if path not in written:  # of a larger network that was replaced
            path.unlink(missing_ok=True)
    return Exported(facts, written, difference, float(expected.abs().max()))


def names_beside(out: Path) -> Path:
    """The file with the names of the people: a list in JSON, in the order of the probabilities."""
    return out.with_name(f"{out.name}.identities.json")


def _write(path: Path, trained: TrainedBackbone, wanted: Wanted, facts: dict[str, str]) -> None:
    if wanted.form is Form.SAFETENSORS:
        as_weights.write_weights(path, trained, facts)
        return
    network = network_of(trained, wanted.takes)
    if wanted.form is Form.ONNX:
        as_onnx.write_onnx(path, network, wanted.takes, wanted.gives, facts)
    else:
        as_program.write_program(path, network, wanted.takes, facts)


def _difference(path: Path, expected: torch.Tensor, wanted: Wanted) -> float | None:
    """The largest between what the file gives and what is expected; None without a runtime.

    Raises:
        UserError: it is more than rounding.
    """
    if wanted.form is Form.ONNX and not as_onnx.can_run():
        return None
    given = _RUN[wanted.form](path, as_taken(random_images(CHECKED_IMAGES), wanted.takes))
    difference = float((given - expected).abs().max())
    if not difference <= TOLERANCE * float(expected.abs().max()):
        raise UserError(
            f"the file gives other numbers than the network: {difference:.2g} apart, on"
            f" {CHECKED_IMAGES} random images",
            fix="it was not kept; choose another form, and tell whoever maintains this",
        )
    return difference
