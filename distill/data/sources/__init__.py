"""Where photographs come from: one file a source, each an iterable of `Sample` in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sample:
    """One photograph of one person, not read yet. Can be sent to worker processes.

    Attributes:
        origin: its name within the source, relative and stable, with ``/`` between parts.
        identity: the person's name.
        read: gives the bytes of the image file; raises `Unusable` where it cannot be read.
    """

    origin: str
    identity: str
    read: Callable[[], bytes]


class Source(Protocol):
    """What `pack` reads."""

    @property
    def name(self) -> str:
        """What the manifest says of where the photographs came from."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """All samples, the same ones in the same order at every call."""
        ...


__all__ = ["Sample", "Source"]
