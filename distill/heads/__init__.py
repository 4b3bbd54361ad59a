"""Layers from embeddings to identities."""

from distill.heads.build import build_head
from distill.heads.replicated import CosineHead, LinearHead

__all__ = ["CosineHead", "LinearHead", "build_head"]
