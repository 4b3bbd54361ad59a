"""What an audit found, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.arrays import Numbers

SHOWN = 5


class Person(NamedTuple):
    """An identity.

    Attributes:
        name: of it.
        listed: photographs over the angle.
        photographs: that were looked at.
    """

    name: str
    listed: int
    photographs: int


class Summary(NamedTuple):
    """What an audit found.

    Attributes:
        photographs: that were looked at.
        unknown: others, of people whom the network does not know.
        listed: over the angle.
        people: identities with photographs.
        worst: those with the largest share listed, the largest first.
        few: identities with ``few_than`` photographs or more, which have fewer without the listed.
        emptied: identities without any, then.
        few_than: see there.
        alike: pairs of identities whose centres are near each other.
        alike_limited: there may be more than those.
    """

    photographs: int
    unknown: int
    listed: int
    people: int
    worst: list[Person]
    few: int
    emptied: int
    few_than: int
    alike: int
    alike_limited: bool

    @classmethod
    def of(
        cls,
        names: list[str],
        looked: Numbers,
        listed: Numbers,
        *,
        unknown: int,
        few_than: int,
        alike: int,
        alike_limited: bool,
    ) -> Summary:
        """Of numbers for each class, (C,)."""
        share = listed / np.maximum(looked, 1)
        order = np.lexsort((np.arange(len(names)), -listed, -share))[:SHOWN]
        worst = [Person(names[c], int(listed[c]), int(looked[c])) for c in order.tolist()]
        left = looked - listed
        return cls(
            photographs=int(looked.sum()),
            unknown=unknown,
            listed=int(listed.sum()),
            people=int((looked > 0).sum()),
            worst=[person for person in worst if person.listed],
            few=int(((looked >= few_than) & (left < few_than)).sum()),
            emptied=int(((looked > 0) & (left == 0)).sum()),
            few_than=few_than,
            alike=alike,
            alike_limited=alike_limited,
        )

    def lines(self, out: Path, people_out: Path | None, degrees: float) -> Iterator[str]:
        """What is told."""
        share = self.listed / max(self.photographs, 1)
        yield (
            f"{self.photographs} photographs of {self.people} people; {self.listed} ({share:.1%})"
            f" over {degrees:g} degrees from their identity's dominant centre: {out}"
        )
        if self.unknown:
            yield f"{self.unknown} more are of people whom the network does not know"
        if self.worst:
            people = ", ".join(f"{p.name!r} {p.listed} of {p.photographs}" for p in self.worst)
            yield f"largest shares: {people}"
        yield (
            f"without them {self.few} more people have fewer than {self.few_than} photographs,"
            f" and {self.emptied} have none"
        )
        if people_out is not None:
            nearest = "the nearest " if self.alike_limited else ""
            yield f"{nearest}{self.alike} pairs of people may be one person: {people_out}"
