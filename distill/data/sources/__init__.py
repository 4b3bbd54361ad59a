"""Where photographs come from: one file a source, each an iterable of `Sample` in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, Protocol

from distill.data.images import Unusable

Landmarks = tuple[tuple[float, float], ...]
"""Five points (x, y) in pixels of the upright image, from its top left corner: left eye, right eye,
nose, left and right corner of the mouth, as the viewer sees them."""


@dataclass(frozen=True)
class Sample:
    """One photograph of one person, not decoded yet. Can be sent to worker processes.

    It may hold the bytes of the image (in what ``read`` is), so nobody should keep many of them:
    keep ``origin`` and ``identity`` instead.

    Attributes:
        origin: its name within the source, relative and stable, with ``/`` between parts.
        identity: the person's name; empty where a damaged record does not tell.
        read: gives the bytes of the image file; raises `Unusable` where it cannot be read.
        landmarks: where the face is, if the source says so.
        photographs: how many it stands for, where what holds several cannot be read.
    """

    origin: str
    identity: str
    read: Callable[[], bytes]
    landmarks: Landmarks | None = None
    photographs: int = 1


class Source(Protocol):
    """What `pack` reads.

    What is damaged is a `Sample` too, whose ``read`` raises `Unusable` with the reason: a row in
    `rejected.csv`, at its place in the order.
    """

    @property
    def name(self) -> str:
        """What the manifest says of where the photographs came from."""
        ...

    @property
    def expected(self) -> int | None:
        """About how many samples there are; None where only reading would tell."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """All samples, the same ones in the same order at every call."""
        ...


def damaged(origin: str, reason: str, identity: str = "", photographs: int = 1) -> Sample:
    """A sample that stands for what cannot be read, be it several photographs."""
    return Sample(origin, identity, partial(_unusable, reason), photographs=photographs)


def held(origin: str, identity: str, data: bytes, landmarks: Landmarks | None = None) -> Sample:
    """A sample whose bytes have been read already."""
    return Sample(origin, identity, partial(bytes, data), landmarks)


def _unusable(reason: str) -> NoReturn:
    raise Unusable(reason)


__all__ = ["Landmarks", "Sample", "Source", "damaged", "held"]
