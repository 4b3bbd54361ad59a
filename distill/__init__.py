"""pairdistill: one face classifier, trained on pairs of images of the same person."""

__version__ = "0.1.0"
