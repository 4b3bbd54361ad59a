"""Layers from embeddings to identities: whole on every rank, or a range of identities on each."""

from distill.heads.build import build_head, build_sharded_head
from distill.heads.replicated import CosineHead, LinearHead
from distill.heads.rows import ClassRanges
from distill.heads.sharded import ShardedHead

__all__ = [
    "ClassRanges",
    "CosineHead",
    "LinearHead",
    "ShardedHead",
    "build_head",
    "build_sharded_head",
]
