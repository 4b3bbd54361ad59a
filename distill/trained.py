"""A trained classifier, ready to be asked: from a run folder, a checkpoint or exported weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from distill.checkpoint import load_weights
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


def restore(path: Path, overrides: Iterable[str] = ()) -> Trained:
    """The classifier at ``path``.

    Args:
        path: a run folder or a folder of checkpoints (its newest verified one), one checkpoint, or
            a ``model.safetensors``.
        overrides: ``section.field=value`` words laid over the settings of the training; the device
            is ``auto`` unless they say otherwise, whatever was trained on.

    Raises:
        UserError: nothing there, damaged, or of another model than its settings say.
    """
    weights = load_weights(path)
    if not weights.identities:
        raise UserError(
            f"{str(path)!r}: a backbone alone, which knows no people",
            fix="train a head on it: set model.init_from to it",
        )
    config = restored_config(weights.config, overrides)
    model = build_classifier(config, len(weights.identities))
    fill(model, weights.tensors, weights.origin)
    about = weights.step, weights.origin, weights.run_id
    return Trained(model.eval(), config, *about, weights.identities)


def restore_backbone(path: Path, overrides: Iterable[str] = ()) -> TrainedBackbone:
    """As `restore`, without the head; ``path`` may also be a backbone of arcface_torch."""
    weights = load_weights(path)
    config = restored_config(weights.config, overrides)
    model = Embedder(build_backbone(config.model.name, embedding_dim=config.model.embedding_dim))
    own = {name: t for name, t in weights.tensors.items() if name.startswith(BACKBONE_PREFIX)}
    fill(model, own, weights.origin)
    return TrainedBackbone(model.eval(), config, weights.step, weights.origin, weights.run_id)


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


def fill(
    model: PairClassifier | Embedder, tensors: Mapping[str, torch.Tensor], origin: Path
) -> None:
    """Put ``tensors`` into ``model``.

    Raises:
        UserError: names or shapes differ; the first few are named.
    """
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    given = {name: tuple(t.shape) for name, t in tensors.items()}
    differences = [
        f"{name}: {given.get(name, 'missing')} in place of {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | given.keys())
        if expected.get(name) != given.get(name)
    ]
    if differences:
        more = f" and {len(differences) - SHOWN_DIFFERENCES} more" if differences[3:] else ""
        raise UserError(
            f"{str(origin)!r} holds another model than its settings say:"
            f" {'; '.join(differences[:SHOWN_DIFFERENCES])}{more}",
            fix="do not change model.* or head.kind of trained weights",
        )
    model.load_state_dict(tensors)
