"""The digest by which a packer knows the photographs of a source again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from distill.data.images import Unusable
from distill.data.locate import LandmarkChoice
from distill.data.pack.work import digest_of
from distill.data.sources import Sample


class SourceDigest:
    """SHA-256 over names, people and contents of photographs, in the order of the source."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, origin: str, identity: str, sha256: bytes) -> None:
        """Takes in one photograph; one that cannot be read counts with an empty digest."""
        first, second = (part.encode("utf-8", "surrogateescape") for part in (origin, identity))
        lengths = [len(part).to_bytes(8, "little") for part in (first, second)]
        head = b"".join((lengths[0], first, lengths[1], second))
        self._hash.update(head + len(sha256).to_bytes(1, "little") + sha256)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


def source_digest(
    samples: Iterable[Sample], landmarks: LandmarkChoice, advance: Callable[[], None]
) -> str:
    """The digest that `survey` would find, from reading alone."""
    digest = SourceDigest()
    for sample in samples:
        digest.add(sample.origin, sample.identity, _content(sample, landmarks))
        advance()
    return digest.hexdigest()


def _content(sample: Sample, landmarks: LandmarkChoice) -> bytes:
    """SHA-256 of what a face is taken from, or nothing where it cannot be read."""
    try:
        return digest_of(sample.read(), sample, landmarks)
    except Unusable:
        return b""
