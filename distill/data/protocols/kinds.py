"""What the evaluation asks of a set, whatever file it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from distill.arrays import Numbers
from distill.data.images import Pixels


class FaceSet(Protocol):
    """Images of faces, each to be embedded once."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def name(self) -> str:
        """What its numbers are filed under."""

    @property
    def min_side(self) -> int:
        """Shortest side that an image may have, in pixels."""

    def __len__(self) -> int:
        """Number of images."""

    def called(self, number: int) -> str:
        """What an image is spoken of as."""

    def image(self, number: int) -> bytes:
        """The bytes of an image's file.

        Raises:
            Unusable: it cannot be read.
        """

    def face(self, number: int) -> tuple[Pixels, str]:
        """An image at 112x112, and a note, which is empty unless a face was not found in it.

        Raises:
            UserError: it cannot be used; without it the numbers would be of another set.
        """


class PairSet(FaceSet, Protocol):
    """Pairs of images, and which of them show one person."""

    @property
    def pairs(self) -> Numbers:
        """Numbers of the two images of each pair, (P, 2)."""

    @property
    def same(self) -> list[bool]:
        """Whether each pair shows one person."""

    @property
    def folds(self) -> int:
        """Runs of consecutive pairs that the published accuracy is the mean of; 1: it has none."""
