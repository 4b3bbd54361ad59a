"""Layers from embeddings to identities."""

from distill.heads.adaface import AdaFace, NormMargins
from distill.heads.build import build_adaface, build_head
from distill.heads.replicated import CosineHead, LinearHead

__all__ = ["AdaFace", "CosineHead", "LinearHead", "NormMargins", "build_adaface", "build_head"]
