"""What a source holds: counts, people, sizes, colours, damage, duplicates. One pass.

Of a photograph are kept 8 bytes of a digest, in a growing array; of a person, a name and a count.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from distill.data.images import Unusable, facts
from distill.data.people import person_name
from distill.data.sources import Sample, Source

MAX_SIZES = 100_000
"""Different sizes that are counted; what comes after them is not."""
SHOWN = 20
"""Damaged records that are named."""
_BINS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)
"""Lower ends of the histogram of images a person."""


@dataclass
class Inspection:
    """What was found.

    Attributes:
        source: what the manifest would call it.
        photographs: all, damaged ones included.
        damaged: those that cannot be read or are no image.
        shown: the first damaged ones, each with its reason.
        reasons: how often each kind of damage came (numbers taken out of the words).
        people: photographs of each person, damaged ones not counted.
        sizes: photographs of each width and height, in pixels.
        colours: photographs of each colour mode and format.
        bytes: of all photographs that can be read.
        with_landmarks: photographs whose landmarks the source tells.
        duplicates: photographs whose content another one before had already.
    """

    source: str
    photographs: int = 0
    damaged: int = 0
    shown: list[tuple[str, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    colours: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    with_landmarks: int = 0
    duplicates: int = 0

    def few(self, low: int) -> list[str]:
        """People with fewer than ``low`` photographs, sorted by name."""
        return sorted(name for name, count in self.people.items() if count < low)

    def histogram(self) -> list[tuple[str, int]]:
        """How many people have so many photographs: a label and a count for each range in use."""
        counts = np.fromiter(self.people.values(), np.int64, len(self.people))
        edges = [*_BINS, np.iinfo(np.int64).max]
        found = np.histogram(counts, edges)[0]
        labels = [_range(low, high) for low, high in pairwise(edges)]
        used = [i for i, number in enumerate(found) if number]
        if not used:
            return []
        return [(labels[i], int(found[i])) for i in range(used[0], used[-1] + 1)]

    def described(self, low: int) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        few = self.few(low)
        return {
            "source": self.source,
            "photographs": self.photographs,
            "bytes": self.bytes,
            "damaged": self.damaged,
            "damage": dict(self.reasons.most_common()),
            "damaged_first": [{"origin": o, "reason": r} for o, r in self.shown],
            "people": len(self.people),
            "images_a_person": dict(self.histogram()),
            "min_images": low,
            "people_with_fewer": len(few),
            "people_with_fewer_first": few[:SHOWN],
            "sizes": _first({f"{w}x{h}": n for (w, h), n in self.sizes.most_common()}),
            "colour": dict(self.colours.most_common()),
            "with_landmarks": self.with_landmarks,
            "duplicates": self.duplicates,
        }


def inspect(
    source: Source, advance: Callable[[], None] = lambda: None, *, quick: bool = False
) -> Inspection:
    """Looks at every photograph of a source once.

    Args:
        source: of photographs.
        quick: read only the headers of images, which does not find all damage.
        advance: told of each one.
    """
    found = Inspection(source.name)
    digests = array("Q")
    for sample in source:
        found.photographs += 1
        try:
            digests.append(_look(sample, found, decoded=not quick))
        except Unusable as fault:
            _note(found, sample.origin, fault.reason)
        advance()
    found.duplicates = len(digests) - len(np.unique(np.frombuffer(digests, np.uint64)))
    return found


def _look(sample: Sample, found: Inspection, *, decoded: bool) -> int:
    """Counts one photograph; gives 64 bits of the digest of its content.

    Raises:
        Unusable: it cannot be read, or is no image.
    """
    data = sample.read()
    image = facts(data, decoded=decoded)
    found.people[person_name(sample.identity)] += 1
    found.bytes += len(data)
    if len(found.sizes) < MAX_SIZES or image.size in found.sizes:
        found.sizes[image.size] += 1
    found.colours[image.colour] += 1
    found.with_landmarks += sample.landmarks is not None
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def kind_of(reason: str) -> str:
    """What one kind of damage is counted by: the words without the numbers."""
    return "".join("#" if c.isdigit() else c for c in reason)[:80]


def _note(found: Inspection, origin: str, reason: str) -> None:
    """Counts one that is damaged."""
    found.damaged += 1
    found.reasons[kind_of(reason)] += 1
    if len(found.shown) < SHOWN:
        found.shown.append((origin, reason))


def _range(low: int, high: int) -> str:
    if high == low + 1:
        return str(low)
    return f"{low} or more" if high > _BINS[-1] else f"{low} .. {high - 1}"


def _first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(list(counts.items())[:SHOWN])
