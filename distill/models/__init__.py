"""Backbones, and the classifier made of one of them and a head."""

from distill.models.classifier import ClassifierOutput, PairClassifier, build_classifier
from distill.models.registry import backbone_names, build_backbone

__all__ = [
    "ClassifierOutput",
    "PairClassifier",
    "backbone_names",
    "build_backbone",
    "build_classifier",
]
