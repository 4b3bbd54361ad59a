"""Second images: predetermined processings of a face, each a function in a file of its own.

A new kind is one file and one line of `_REGISTRY`. A processing takes an aligned face, a keyed
generator, another face of the same person (or None) and the options, and gives the processed face
(points moved with it) and a few words on how it was made. It keeps no state: the result depends
on its arguments alone.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distill.data.faces import AlignedFace
from distill.data.images import Pixels
from distill.data.second.blur import blur
from distill.data.second.eyes import eyes
from distill.data.second.forehead import forehead
from distill.data.second.glasses import glasses
from distill.data.second.options import SecondOptions
from distill.data.second.pose import pose
from distill.errors import UserError

Processing = Callable[
    [AlignedFace, np.random.Generator, AlignedFace | None, SecondOptions], tuple[AlignedFace, str]
]

_REGISTRY: dict[str, Processing] = {
    "pose": pose,
    "eyes": eyes,
    "glasses": glasses,
    "forehead": forehead,
    "blur": blur,
}
"""In the order in which several are applied to one image: the camera's faults come last."""

KINDS: tuple[str, ...] = tuple(_REGISTRY)
"""Names of all kinds, in the order of application."""


def make_second(
    kind: str,
    face: AlignedFace,
    rng: np.random.Generator,
    *,
    other: AlignedFace | None = None,
    options: SecondOptions | None = None,
) -> tuple[Pixels, str]:
    """One processing of one face.

    Args:
        kind: one of `KINDS`.
        face: the sample; not changed.
        rng: from `distill.data.keyed.keyed_rng(seed, sample, kind)`.
        other: another face of the same person, for `eyes` and `pose`.
        options: ranges and choices; None for the defaults.

    Returns:
        (size, size, 3) uint8, and how it was made, e.g. ``"blur: motion 6.2"``.
    """
    return combine([kind], face, lambda _: rng, other=other, options=options)


def combine(
    kinds: Sequence[str],
    face: AlignedFace,
    rng_of: Callable[[str], np.random.Generator],
    *,
    other: AlignedFace | None = None,
    options: SecondOptions | None = None,
) -> tuple[Pixels, str]:
    """Several processings of one face, in the order of `KINDS` whatever the order of ``kinds``.

    Args:
        kinds: names, at least one, none twice.
        face: the sample; not changed.
        rng_of: gives each kind its generator, e.g. ``lambda kind: keyed_rng(seed, sample, kind)``.
        other: another face of the same person.
        options: ranges and choices; None for the defaults.

    Returns:
        (size, size, 3) uint8, and how each was made, joined by ``"; "``.
    """
    assert kinds, "at least one kind"
    chosen = options or SecondOptions()
    told = []
    for kind in sorted(set(kinds), key=KINDS.index):
        processed, how = _REGISTRY[kind](face, rng_of(kind), other, chosen)
        told.append(f"{kind}: {how}")
        if kind == "pose" and other is not None:
            other = face  # the picture now shows `other`; the sample is what else there is
        face = processed
    return face.rgb, "; ".join(told)


def draw_kinds(probabilities: Mapping[str, float], rng: np.random.Generator) -> tuple[str, ...]:
    """Kinds for one second image: each with its own probability, and at least one.

    Where none comes up, one is drawn in proportion to the probabilities.

    Args:
        probabilities: from `parse_kinds`; their sum is greater than 0.
        rng: a keyed generator.
    """
    names = [kind for kind in KINDS if probabilities.get(kind, 0.0) > 0.0]
    weights = np.array([probabilities[kind] for kind in names])
    drawn = rng.random(len(names)) < weights
    if not drawn.any():
        drawn[rng.choice(len(names), p=weights / weights.sum())] = True
    return tuple(name for name, taken in zip(names, drawn, strict=True) if taken)


def parse_kinds(text: str) -> dict[str, float]:
    """``"forehead=0.3, blur=0.5, glasses"`` to probabilities; a name alone means 1, ``all`` all.

    Raises:
        UserError: an unknown or repeated name, no number, a number outside (0, 1], nothing.
    """
    parsed: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = (p.strip() for p in part.partition("="))
        for kind in KINDS if name == "all" else (_known(name),):
            if kind in parsed:
                raise UserError(f"second-image kind {kind!r} is given twice", fix="name it once")
            parsed[kind] = _probability(kind, number) if "=" in part else 1.0
    if not parsed:
        raise UserError("no second-image kind is given", fix=f"choose from {', '.join(KINDS)}")
    return {kind: parsed[kind] for kind in KINDS if kind in parsed}


def _known(name: str) -> str:
    if name in _REGISTRY:
        return name
    near = difflib.get_close_matches(name, KINDS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"unknown second-image kind {name!r}", fix=f"{hint}choose from {', '.join(KINDS)}"
    )


def _probability(kind: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value <= 1.0:
        raise UserError(
            f"second-image kind {kind} = {text!r}: not a probability",
            fix="give a number above 0 and at most 1",
        )
    return value


__all__ = [
    "KINDS",
    "AlignedFace",
    "SecondOptions",
    "combine",
    "draw_kinds",
    "make_second",
    "parse_kinds",
]
