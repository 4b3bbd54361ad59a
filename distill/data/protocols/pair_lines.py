"""Lists of CALFW and CPLFW as their authors give them, beside a folder of photographs.

Format, as programs that read ``pairs_CALFW.txt`` and ``pairs_CPLFW.txt`` agree: no heading, and two
lines a pair, ``FILE LABEL``, with one label: 0 where the photographs are of two people. Where they
are of one, the label of CALFW is the number of the set, 1 to 10, of 300 pairs each; the pairs of
two people follow, without a number, and are shared out to the sets in their order.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.data.protocols.lines import Line
from distill.data.protocols.pairs_txt import (
    PHOTOGRAPH_ENDINGS,
    PhotographPairs,
    list_of_pairs,
    photograph,
    root_of,
)
from distill.data.sources.paths import Below

USUAL_NAMES = ("pairs_CALFW.txt", "pairs_CPLFW.txt")


class Pair(NamedTuple):
    """Two files, the line of each, and their label."""

    first: Line
    second: Line
    label: int

    @property
    def files(self) -> tuple[str, str]:
        """Their names."""
        return self.first.fields[0], self.second.fields[0]


def is_pair_lines(lines: list[Line]) -> bool:
    """Whether a list begins as these do: with a photograph and a label."""
    if not lines or len(lines[0].fields) != 2:
        return False
    return Path(lines[0].fields[0]).suffix.lower() in PHOTOGRAPH_ENDINGS


def read_pair_lines(path: Path) -> PhotographPairs:
    """The pairs of a list.

    Raises:
        UserError: it is missing, damaged or cut short, or a photograph is not there; file and line
            are named.
    """
    sets = sets_of(pairs_of(list_of_pairs(path)))
    in_sets = [pair for each in sets for pair in each]
    below = Below(os.path.realpath(root_of(path, in_sets[0].files[0])))
    named = _named(in_sets)
    photographs = [photograph(below, line, name) for name, line in named.items()]
    place = {name: number for number, name in enumerate(named)}
    numbers = np.array([[place[name] for name in pair.files] for pair in in_sets])
    return PhotographPairs(
        path, photographs, numbers, [pair.label > 0 for pair in in_sets], len(sets)
    )


def pairs_of(lines: list[Line]) -> list[Pair]:
    """The pairs, in their order."""
    for line in lines:
        line.need(2, "a photograph of a pair (FILE LABEL)")
    if len(lines) % 2:
        raise lines[-1].wrong("a photograph without the other one of its pair")
    pairs = []
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        label = first.whole(1)
        if second.whole(1) != label:
            raise second.wrong(f"label {second.fields[1]}, where its pair has {label}")
        pairs.append(Pair(first, second, label))
    return pairs


def sets_of(pairs: list[Pair]) -> list[list[Pair]]:
    """The sets of equal size that the labels tell of; else one of all, as they stand."""
    counts = Counter(pair.label for pair in pairs)
    others = counts.pop(0, 0)
    sizes = set(counts.values())
    if set(counts) != set(range(1, len(counts) + 1)) or len(sizes) != 1:
        return [pairs]
    (size,) = sizes
    if others != size * len(counts):
        return [pairs]
    apart = [pair for pair in pairs if not pair.label]
    return [
        [pair for pair in pairs if pair.label == number] + apart[size * (number - 1) :][:size]
        for number in range(1, len(counts) + 1)
    ]


def _named(pairs: list[Pair]) -> dict[str, Line]:
    """The first line of each photograph."""
    found: dict[str, Line] = {}
    for pair in pairs:
        for line in (pair.first, pair.second):
            found.setdefault(line.fields[0], line)
    return found
