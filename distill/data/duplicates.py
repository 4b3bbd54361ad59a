"""Photographs that are nearly the same: found by a hash of the face, whatever their number.

Two steps. A 64-bit hash of each aligned face (signs of its lowest spatial frequencies) gives
candidates: pairs that differ in at most `MAX_BITS` bits. They are found by multi-index hashing
(Norouzi, Punjani, Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012):
of `MAX_BITS` + 3 pieces of two such hashes at least three are equal, so only photographs that share
three pieces are compared. (Of `MAX_BITS` + 1 pieces one is. But 16 bits of the low frequencies of
faces are no more than some hundred patterns, and a data set of millions has millions with each.)
Then the two faces themselves are compared, since aligned faces of different
people share much of their hash: nearly the same means a correlation of `MIN_CORRELATION` or more.
What is connected by such pairs is one group (union-find).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.compiled import compiled
from distill.data.images import Pixels

HASH_BITS = 64
MAX_BITS = 3
"""Largest number of different bits of two hashes that are compared further."""
MIN_CORRELATION = 0.98
"""Smallest correlation of two small grey faces that are nearly the same."""

_SIDE = 32
"""Side of the small grey face, in pixels."""
_FREQUENCIES = sorted(((r, c) for r in range(16) for c in range(16)), key=lambda p: (sum(p), p))
_PAIRS_AT_A_TIME = 1 << 16
_EQUAL = 3
_PIECES = MAX_BITS + _EQUAL
# The lowest frequencies differ least between faces, so each piece gets its share of them.
_SPREAD = [
    _FREQUENCIES[1 + i] for piece in range(_PIECES) for i in range(piece, HASH_BITS, _PIECES)
]
_ROWS, _COLUMNS = np.array(_SPREAD).T

Hashes = npt.NDArray[np.uint64]


def _keys() -> Hashes:
    """The bits of each three pieces, which lie one after another from the highest bit on."""
    sizes = [len(range(piece, HASH_BITS, _PIECES)) for piece in range(_PIECES)]
    lows = HASH_BITS - np.cumsum(sizes)
    pieces = [((1 << size) - 1) << int(low) for size, low in zip(sizes, lows, strict=True)]
    return np.array([sum(chosen) for chosen in combinations(pieces, _EQUAL)], np.uint64)


_KEYS = _keys()


def small_grey(rgb: Pixels) -> npt.NDArray[np.float32]:
    """A face, (S, S, 3) uint8, as (32, 32) float32 grey."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def face_hash(rgb: Pixels) -> int:
    """64 signs of the discrete cosine transform of an aligned face, lowest frequencies first.

    Brightness does not count (the lowest frequency is left out), nor does contrast.
    """
    signs = cv2.dct(small_grey(rgb))[_ROWS, _COLUMNS] > 0
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


def alike(first: Pixels, second: Pixels) -> bool:
    """Whether two faces are nearly the same picture."""
    return correlation(first, second) >= MIN_CORRELATION


def correlation(first: Pixels, second: Pixels) -> float:
    """Pearson's correlation of two small grey faces; 1 where neither has any contrast."""
    one, other = (grey - grey.mean() for grey in map(small_grey, (first, second)))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    if norm == 0.0:
        return float(not one.any() and not other.any())
    return float((one * other).sum()) / norm


def groups(hashes: Hashes, confirmed: Callable[[int, int], bool] | None = None) -> Numbers:
    """Which photographs are nearly the same.

    Args:
        hashes: of N photographs, (N,) uint64.
        confirmed: whether two of them, by number, are alike; called for candidates only. None
            takes all candidates.

    Returns:
        (N,) int64: the smallest number in each photograph's group.
    """
    union = Union(len(hashes))
    for first, second in candidates(hashes):
        if union.root(first) != union.root(second) and (
            confirmed is None or confirmed(first, second)
        ):
            union.join(first, second)
    return union.roots()


def candidates(hashes: Hashes) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, whose hashes differ in at most `MAX_BITS` bits; equal ones in a chain.

    Of k photographs with one hash, k - 1 pairs stand for them all, so that a million copies of one
    picture are a million pairs. No pair comes twice.
    """
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    same = in_order[1:] == in_order[:-1]
    yield from _as_pairs(order[:-1][same], order[1:][same])
    new = np.append(True, ~same)[: len(hashes)]
    different, first = in_order[new], order[new]
    del in_order, same, new  # as large as the hashes, and no more needed
    for number in range(len(_KEYS)):
        order = np.argsort(different & _KEYS[number])
        for one, other in _close_pairs(different[order], _KEYS[: number + 1]):
            yield from _as_pairs(first[order[one]], first[order[other]])


def _close_pairs(hashes: Hashes, keys: Hashes) -> Iterator[tuple[Numbers, Numbers]]:
    """Places of close pairs among hashes that are equal in the last of ``keys``, many at a time.

    Hashes are sorted by it; pairs that are equal in an earlier one are passed over.
    """
    found = np.empty((_PAIRS_AT_A_TIME, 2), np.int64)
    one, other = 0, 1
    while one < len(hashes):
        one, other, count = _scan(hashes, keys, one, other, found)
        yield found[:count, 0], found[:count, 1]


@compiled
def _scan(hashes: Any, keys: Any, one: int, other: int, found: Any) -> tuple[int, int, int]:
    """Goes on from the pair (one, other) until ``found`` is full; where to go on, and how many."""
    count, key = 0, keys[-1]
    while one < len(hashes):
        while other < len(hashes) and (hashes[one] ^ hashes[other]) & key == 0:
            different, bits = hashes[one] ^ hashes[other], 0
            while different != 0 and bits <= MAX_BITS:
                different &= different - np.uint64(1)  # takes the lowest 1 away
                bits += 1
            if bits <= MAX_BITS and not _seen(hashes[one] ^ hashes[other], keys):
                if count == len(found):
                    return one, other, count
                found[count, 0], found[count, 1] = one, other
                count += 1
            other += 1
        one += 1
        other = one + 1
    return one, other, count


@compiled
def _seen(different: Any, keys: Any) -> bool:
    """Whether hashes with these different bits are equal in one of ``keys`` but the last."""
    for key in keys[:-1]:  # noqa: SIM110 (numba compiles no generators)
        if different & key == 0:
            return True
    return False


def _as_pairs(one: Numbers, other: Numbers) -> Iterator[tuple[int, int]]:
    low, high = np.minimum(one, other), np.maximum(one, other)
    return zip(low.tolist(), high.tolist(), strict=True)


class Union:
    """Which of N things are connected (union-find, with halving of paths; Tarjan 1975)."""

    def __init__(self, count: int) -> None:
        self._above = np.arange(count)

    def root(self, number: int) -> int:
        """The smallest number connected with ``number``."""
        above = self._above
        while above[number] != number:
            above[number] = above[above[number]]
            number = int(above[number])
        return number

    def join(self, first: int, second: int) -> None:
        """Connects two."""
        one, other = self.root(first), self.root(second)
        self._above[max(one, other)] = min(one, other)

    def roots(self) -> Numbers:
        """The root of each, (N,)."""
        while not np.array_equal(further := self._above[self._above], self._above):
            self._above = further
        return self._above
