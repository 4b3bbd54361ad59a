"""Second images: predetermined processings of a face, the same when packing and when loading.

A kind is a compiled function in `pixels` (a file of its own and a line in `pixels.kinds`) and a
line of `words`. It takes an aligned face, another face of the same person (or none), what the
finder says of glasses, the options and a random stream, and gives the processed face with its
points moved along. It keeps no state: the result depends on its arguments alone.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from distill.data.faces import FACE_SIZE, TEMPLATE, AlignedFace
from distill.data.images import Pixels
from distill.data.keyed import keyed_rng
from distill.data.second.frame_finder import worn_of
from distill.data.second.options import SecondOptions
from distill.data.second.pixels import kinds as compiled
from distill.data.second.words import words
from distill.errors import UserError

KINDS: tuple[str, ...] = compiled.NAMES
"""Names of all kinds, in the order of application."""
TAKING_OTHER = tuple(kind for i, kind in enumerate(KINDS) if compiled.NEED_OTHER >> i & 1)
"""Kinds that take another photograph of the person, where there is one."""


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
        other: another face of the same person, of the same size.
        options: ranges and choices; None for the defaults.

    Returns:
        (size, size, 3) uint8, and how each was made, joined by ``"; "``.
    """
    made, how = process(kinds, face, rng_of, other=other, options=options)
    return made.rgb, how


def process(
    kinds: Sequence[str],
    face: AlignedFace,
    rng_of: Callable[[str], np.random.Generator],
    *,
    other: AlignedFace | None = None,
    options: SecondOptions | None = None,
) -> tuple[AlignedFace, str]:
    """As `combine`, with the points of the processed face."""
    assert kinds, "at least one kind"
    assert other is None or other.rgb.shape == face.rgb.shape, "faces of one size"
    chosen, donor = options or SecondOptions(), other or face
    keys, drawn = np.zeros(len(KINDS), np.uint64), 0
    for kind in sorted(set(kinds), key=KINDS.index):
        drawn |= 1 << KINDS.index(kind)
        keys[KINDS.index(kind)] = rng_of(kind).integers(0, 2**64, dtype=np.uint64)
    looked_for = "glasses" in kinds and chosen.glasses != "draw"
    # After `pose` with another photo the picture shows that one, and glasses are its own.
    shown = donor if "pose" in kinds else face
    worn = worn_of(shown) if looked_for else 0
    out, moved = np.empty_like(_own(face.rgb)), np.empty((5, 2), np.float32)
    told = np.zeros((len(KINDS), compiled.TOLD))
    compiled.combine(
        compiled.pointers(drawn), drawn, _own(face.rgb), _own(face.points), _own(donor.rgb),
        _own(donor.points), other is not None, worn, worn, chosen.numbers(), keys, out, moved,
        told,
    )  # fmt: skip
    how = [f"{k}: {words(k, told[i])}" for i, k in enumerate(KINDS) if drawn >> i & 1]
    return AlignedFace(out, moved), "; ".join(how)


def warm_up(kinds: Iterable[str] = KINDS) -> None:
    """Compiles some kinds, or loads them from numba's cache, before others need them.

    The first time on a machine that takes about 5 s a kind; afterwards, a fraction of a second.
    """
    face = AlignedFace(np.zeros((FACE_SIZE, FACE_SIZE, 3), np.uint8), TEMPLATE)
    process(list(kinds), face, lambda kind: keyed_rng("warm up", kind))


def _own(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A contiguous array that may be written: the one form that compiled code is made for."""
    return np.array(values, np.uint8 if values.ndim == 3 else np.float32, order="C")


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
    if name in KINDS:
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
    "TAKING_OTHER",
    "AlignedFace",
    "SecondOptions",
    "combine",
    "draw_kinds",
    "make_second",
    "parse_kinds",
    "process",
    "warm_up",
]
