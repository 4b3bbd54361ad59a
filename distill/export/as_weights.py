"""Weights of the backbone alone, `.safetensors`: under arcface_torch's names where it has any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from distill.checkpoint.arcface import theirs
from distill.checkpoint.tensor_file import TensorWriter, library_order, specs_of
from distill.checkpoint.weights import header_of
from distill.trained import TrainedBackbone, restore_backbone


def write_weights(path: Path, trained: TrainedBackbone, facts: Mapping[str, str]) -> None:
    """Write the backbone so that this program reads it again, and arcface_torch where it has it.

    Raises:
        OSError: no space, no permission.
    """
    ours, header = trained.model.state_dict(), dict(facts)
    tensors = theirs(ours, trained.config.model.name)
    if tensors is None:
        tensors, header = ours, header | _header(trained)
    ordered = library_order(specs_of(tensors))
    with TensorWriter(path, ordered, header) as writer:
        for spec in ordered:
            writer.add(tensors[spec.key])


def _header(trained: TrainedBackbone) -> dict[str, str]:
    """Of a backbone that knows no people; of the settings what builds it, and no paths."""
    model = trained.config.model
    config = {"model": {"name": model.name, "embedding_dim": model.embedding_dim}}
    return header_of(config, [], trained.step, trained.run_id)


@torch.no_grad()
def run_weights(path: Path, images: torch.Tensor) -> torch.Tensor:
    """Embeddings by the backbone that is read back from the file."""
    found: torch.Tensor = restore_backbone(path).model.backbone(images)
    return found
