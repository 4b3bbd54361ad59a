"""Layers from embeddings to identities: whole on every rank, or a range of identities on each."""

from distill.heads.adaface import AdaFace, NormMargins
from distill.heads.build import build_adaface, build_head, build_sharded_head, check_kind
from distill.heads.replicated import CosineHead, LinearHead
from distill.heads.rows import ClassRanges
from distill.heads.sharded import ShardedHead

__all__ = [
    "AdaFace",
    "ClassRanges",
    "CosineHead",
    "LinearHead",
    "NormMargins",
    "ShardedHead",
    "build_adaface",
    "build_head",
    "build_sharded_head",
    "check_kind",
]
