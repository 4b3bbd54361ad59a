"""One kind, several kinds, a batch of second images: what packing and loading call."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
from numba import float32, float64, from_dtype, int64, types, uint8, uint64
from numba.core.errors import NumbaExperimentalFeatureWarning
from numba.experimental.function_type import _get_wrapper_address

from distill.data.compiled import compiled, is_compiled_elsewhere
from distill.data.compiled_once import idle_first
from distill.data.second.options import NUMBERS
from distill.data.second.pixels.blur import blur
from distill.data.second.pixels.crop import crop
from distill.data.second.pixels.draws import joined, stream, uniform
from distill.data.second.pixels.eyes import eyes
from distill.data.second.pixels.forehead import forehead
from distill.data.second.pixels.glasses import glasses
from distill.data.second.pixels.light import light
from distill.data.second.pixels.mask import mask
from distill.data.second.pixels.pose import pose

NAMES = ("pose", "eyes", "glasses", "mask", "forehead", "light", "crop", "blur")
"""In the order in which several are applied to one image: the camera's faults come last."""
POSE, EYES, GLASSES, MASK, FOREHEAD, LIGHT, CROP, BLUR = range(8)
NEED_OTHER = 1 << POSE | 1 << EYES
"""Kinds, as bits, that take another photo of the person."""
TOLD = 4
"""Numbers in which a kind tells how it was made."""

_Image, _Points = uint8[:, :, ::1], float32[:, ::1]
_OF_A_KIND = types.void(
    _Image, _Points, _Image, _Points, types.boolean, int64,
    types.Array(from_dtype(NUMBERS), 1, "C"), uint64[::1], _Image, _Points, float64[::1],
)  # fmt: skip
"""The arguments of every kind.

    image       (S, S, 3) uint8
    points      its five points, (5, 2) float32
    other       another photo of the person, likewise; read where there is one
    others      its points
    has_other   whether there is one
    worn        what the finder says of glasses on ``image`` (see `glasses.FOUND`)
    options     from `SecondOptions.numbers`, (1,)
    state       of a random stream; moved on
    out         holds a copy of ``image``, and is changed
    moved       holds a copy of ``points``, and is changed
    told        up to `TOLD` numbers on how it was made, (TOLD,) float64, zero before
"""


class Kind(types.WrapperAddressProtocol):  # type: ignore[misc]
    """A compiled kind as a plain function pointer.

    Compiled code that calls it through this need not be compiled, nor optimised, together with it:
    that keeps compiling all kinds from taking several times as long.
    """

    def __init__(self, function: Any) -> None:
        self._function = function

    @functools.cached_property
    def _address(self) -> int:
        address: int = _get_wrapper_address(self._function, _OF_A_KIND)
        return address

    def is_compiled_elsewhere(self) -> bool:
        """Whether another process is compiling it right now."""
        return is_compiled_elsewhere(self._function)

    def __wrapper_address__(self) -> int:
        return self._address

    def signature(self) -> Any:
        """What numba needs to know to call it."""
        return _OF_A_KIND


_FUNCTIONS = (pose, eyes, glasses, mask, forehead, light, crop, blur)


@functools.cache
def pointers(drawn: int) -> tuple[Kind, ...]:
    """Functions by their place in `NAMES`: those of the kinds that are bits of ``drawn``.

    They are compiled here, or loaded from the cache. In the places of other kinds stands one of
    these, so that nothing is compiled that is not called.
    """
    # Function pointers have been "experimental" in numba since 0.49; the version is pinned.
    warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
    wanted = [kind for kind in range(len(NAMES)) if drawn >> kind & 1]
    made = {kind: Kind(_FUNCTIONS[kind]) for kind in wanted}
    for kind in idle_first(made.values(), Kind.is_compiled_elsewhere):
        kind.__wrapper_address__()
    return tuple(made.get(kind, made[wanted[0]]) for kind in range(len(NAMES)))


@compiled
def draw_kinds(chances: Any, state: Any) -> Any:
    """Kinds of one second image as bits: each with its own chance (8,), and at least one.

    Where none comes up, one is drawn in proportion to the chances.
    """
    drawn, total = 0, 0.0
    for kind in range(len(chances)):
        total += chances[kind]
        if uniform(state) < chances[kind]:
            drawn |= 1 << kind
    if drawn:
        return drawn
    left = uniform(state) * total
    last = 0
    for kind in range(len(chances)):
        if chances[kind] > 0:
            last = kind
            left -= chances[kind]
            if left < 0:
                break
    return 1 << last


@compiled
def combine(
    functions: Any, drawn: Any, image: Any, points: Any, other: Any, others: Any, has_other: Any,
    worn: Any, worn_other: Any, options: Any, keys: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """Several kinds one after the other, each with the stream of its own key.

    Args:
        functions: `pointers` of at least these kinds.
        drawn: the kinds as bits.
        worn_other: as ``worn``, of ``other``.
        keys: (8,) uint64.
        out: filled, as ``image``.
        moved: filled with the points of ``out``.
        told: (8, TOLD), zero before; the rest is as in `_OF_A_KIND`.

    After `pose` with another photo the picture shows that one; the sample is what else there is.
    """
    now, spare = image.copy(), image.copy()
    at, at_spare = points.copy(), points.copy()
    for kind in range(len(keys)):
        if not (drawn >> kind) & 1:
            continue
        spare[:], at_spare[:] = now, at
        functions[kind](
            now, at, other, others, has_other, worn, options, stream(keys[kind]), spare, at_spare,
            told[kind],
        )  # fmt: skip
        now, spare = spare, now
        at, at_spare = at_spare, at
        if kind == POSE and has_other:
            other, others, worn = image, points, worn_other
    out[:], moved[:] = now, at


@compiled
def key_batch(seed: Any, epochs: Any, ids: Any, keys: Any) -> None:
    """A key for each pair of (seed, epoch, id); (B,) int64 to (B,) uint64."""
    for i in range(len(ids)):
        keys[i] = joined(joined(joined(np.uint64(0), seed), epochs[i]), ids[i])


@compiled
def uniform_batch(keys: Any, which: Any, counts: Any, out: Any) -> None:
    """A whole number in [0, count) from stream ``which`` of each key; 0 where the count is 0."""
    for i in range(len(keys)):
        out[i] = int(uniform(stream(joined(keys[i], which))) * counts[i])


@compiled
def draw_batch(chances: Any, keys: Any, drawn: Any) -> None:
    """`draw_kinds` for the second images of some keys, (B,) uint64 to (B,) int64."""
    for i in range(len(keys)):
        drawn[i] = draw_kinds(chances, stream(joined(keys[i], 0)))


@compiled
def combine_batch(
    functions: Any, drawn: Any, images: Any, points: Any, others: Any, others_points: Any,
    has_other: Any, worn: Any, worn_others: Any, options: Any, keys: Any, out: Any,
) -> None:  # fmt: skip
    """`combine` for B pairs; every array but ``options`` with one more dimension in front."""
    moved, told = np.empty((5, 2), np.float32), np.zeros((8, TOLD))
    own = np.empty(8, np.uint64)
    for i in range(len(keys)):
        for kind in range(8):
            own[kind] = joined(keys[i], kind + 1)
        combine(
            functions, drawn[i], images[i], points[i], others[i], others_points[i], has_other[i],
            worn[i], worn_others[i], options, own, out[i], moved, told,
        )  # fmt: skip
