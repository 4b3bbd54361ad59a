"""A trained classifier, ready to be asked: from a run folder, a checkpoint or exported weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.checkpoint import Stored, open_weights
from distill.checkpoint.arcface import BACKBONE_PREFIX
from distill.config import Config, parse_overrides
from distill.config.explain import explain
from distill.errors import UserError
from distill.models.classifier import Embedder, PairClassifier, build_classifier
from distill.models.registry import build_backbone

SHOWN_DIFFERENCES = 3


@dataclass(frozen=True)
class TrainedBackbone:
    """A backbone in evaluation mode, and what is known of it.

    Attributes:
        model: on the CPU; float32.
        config: the settings it was trained with, changed where asked.
        step: optimizer steps made.
        origin: the file or folder the weights were read from.
        run_id: the run; empty for a backbone of arcface_torch.
    """

    model: PairClassifier | Embedder
    config: Config
    step: int
    origin: Path
    run_id: str

    @property
    def source(self) -> dict[str, Any]:
        """Where the weights came from, for a report (no absolute path)."""
        return {"name": self.origin.name, "step": self.step}


@dataclass(frozen=True)
class Trained(TrainedBackbone):
    """A classifier in evaluation mode, and what is known of it.

    Attributes:
        identities: names of the C people, by class.
    """

    model: PairClassifier
    identities: list[str]


def restore(path: Path, overrides: Iterable[str] = (), *, compared: bool = False) -> Trained:
    """The classifier at ``path``.

    Args:
        path: a run folder or a folder of checkpoints (its newest verified one), one checkpoint, or
            a ``model.safetensors``.
        overrides: ``section.field=value`` words laid over the settings of the training; the device
            is ``auto`` unless they say otherwise, whatever was trained on.
        compared: as in `open_weights`.

    Raises:
        UserError: nothing there, damaged, or of another model than its settings say.
    """
    with ExitStack() as stack:
        stored = open_weights(path, stack, compared=compared)
        if not stored.identities:
            what = "a head for people without names" if stored.unnamed else "a backbone alone"
            raise UserError(
                f"{str(path)!r}: {what}, which knows no people",
                fix="train a head on it: set model.init_from to it",
            )
        config = restored_config(stored.config, overrides)
        model = build_classifier(config, len(stored.identities))
        fill(model, stored, stored.keys)
    about = stored.step, stored.origin, stored.run_id
    return Trained(model.eval(), config, *about, stored.identities)


def restore_backbone(
    path: Path, overrides: Iterable[str] = (), *, compared: bool = False
) -> TrainedBackbone:
    """As `restore`, without the head, which is not read either.

    ``path`` may also be a backbone of arcface_torch.
    """
    with ExitStack() as stack:
        return backbone_of(open_weights(path, stack, compared=compared), overrides)


def backbone_of(stored: Stored, overrides: Iterable[str] = ()) -> TrainedBackbone:
    """As `restore_backbone`, of weights that are open; the head may be read from them too."""
    config = restored_config(stored.config, overrides)
    chosen = config.model
    model = Embedder(build_backbone(chosen.name, embedding_dim=chosen.embedding_dim))
    fill(model, stored, [name for name in stored.keys if name.startswith(BACKBONE_PREFIX)])
    return TrainedBackbone(model.eval(), config, stored.step, stored.origin, stored.run_id)


def restored_config(stored: Mapping[str, Any], overrides: Iterable[str] = ()) -> Config:
    """The settings of a training, as plain data, with ``overrides`` laid over them.

    Raises:
        UserError: settings that this version does not know, or wrong overrides.
    """
    changes = parse_overrides(["run.device=auto", *overrides])
    sections = {**stored, **changes}
    for name in stored.keys() & changes.keys():
        old, new = stored[name], changes[name]
        both_tables = isinstance(old, Mapping) and isinstance(new, Mapping)
        sections[name] = {**old, **new} if both_tables else new
    try:
        return Config.model_validate(sections)
    except ValidationError as error:
        raise explain(error) from None


def fill(model: PairClassifier | Embedder, stored: Stored, names: Iterable[str]) -> None:
    """Copy the tensors ``names`` from their files into ``model``; there is no third place.

    Raises:
        UserError: names or shapes differ; the first few are named.
    """
    places = model.state_dict()
    expected = {name: tuple(t.shape) for name, t in places.items()}
    given = {name: stored.shapes[name] for name in names}
    differences = [
        f"{name}: {given.get(name, 'missing')} in place of {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | given.keys())
        if expected.get(name) != given.get(name)
    ]
    if differences:
        left = len(differences) - SHOWN_DIFFERENCES
        more = f" and {left} more" if left > 0 else ""
        raise UserError(
            f"{str(stored.origin)!r} holds another model than its settings say:"
            f" {'; '.join(differences[:SHOWN_DIFFERENCES])}{more}",
            fix="do not change model.*, head.kind or head.sub_centres of trained weights",
        )
    for name, place in places.items():
        stored.reader.copy_elements(stored.keys[name], 0, place.view(-1))
