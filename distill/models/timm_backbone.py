"""Backbones of the timm library, an optional extra that nothing else needs."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import nn

from distill.data.batch import IMAGE_SIZE
from distill.errors import UserError
from distill.extras import how_to_install
from distill.models.layers import EmbeddingNorm


class TimmBackbone(nn.Module):
    """A timm network without its classifier, then dropout, a linear layer to D and batch norm."""

    def __init__(self, network: nn.Module, features: int, embedding_dim: int, dropout: float):
        super().__init__()
        self.network = network
        self.embedding = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(features, embedding_dim), EmbeddingNorm(embedding_dim)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 112, 112) to (N, D)."""
        embeddings: torch.Tensor = self.embedding(self.network(images))
        return embeddings


def build_timm(name: str, embedding_dim: int, dropout: float) -> nn.Module:
    """The timm network ``name`` with random weights, made for 112x112 images.

    Raises:
        UserError: as `timm_with`.
    """
    network = create(timm_with(name), name)
    # Some put a layer of another width before their classifier, and keep it without one.
    features = getattr(network, "head_hidden_size", network.num_features)
    return TimmBackbone(network, int(features), embedding_dim, dropout)


def timm_with(name: str) -> ModuleType:
    """The timm package, which has the network ``name``.

    Raises:
        UserError: it is not installed, or knows no such network.
    """
    timm = import_timm(name)
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:3]
        hint = f"did you mean {', '.join(near)}?" if near else "see `timm.list_models()`"
        raise UserError(f"model.name = 'timm:{name}': timm has no such network", fix=hint)
    return timm


def import_timm(name: str) -> ModuleType:
    """The timm package, or a clear error where it is missing."""
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise UserError(
            f"model.name = 'timm:{name}': timm is not installed",
            fix=f"install it with `{how_to_install('timm')}`, or take a built-in backbone",
        ) from error


def create(timm: ModuleType, name: str) -> Any:
    """A network without classifier; transformers have to be told the size of the images."""
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=IMAGE_SIZE)
    except TypeError:  # convolutional networks take no img_size
        return timm.create_model(name, pretrained=False, num_classes=0)
