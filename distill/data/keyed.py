"""Random numbers that depend on a key alone: not on time, process, worker or order of work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers

Key = int | str | bytes
_Words = npt.NDArray[np.uint64]

_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)
_WEYL = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)
_ROUNDS = 10
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def keyed_rng(*key: Key) -> np.random.Generator:
    """A generator whose stream is a pure function of ``key``.

    Philox (counter-based; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
    keyed by the first 128 bits of BLAKE2b over the parts. Each part is hashed with its type and
    its length, so ``(1, 23)``, ``(12, 3)`` and ``("1", "23")`` are three different keys.

    Args:
        key: e.g. ``(seed, sample index, "forehead")``.
    """
    digest = hashlib.blake2b(b"".join(map(_hashed, key)), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def first_randoms(before: Key, names: Iterable[str], *after: Key) -> npt.NDArray[np.float64]:
    """``keyed_rng(before, name, *after).random()`` of each of N names, (N,), without generators."""
    words = _first_words(_keys(before, names, after))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def first_integers(below: Numbers, before: Key, names: Sequence[str], *after: Key) -> Numbers:
    """``keyed_rng(before, name, *after).integers(below)`` of each, (N,), mostly without generators.

    As numpy does it for bounds of 32 bits: the upper half of the bound times the lower half of the
    first word (Lemire, "Fast random integer generation in an interval", TOMACS 2019). Few products
    have a lower half that may make it draw again; those are left to it.

    Args:
        below: bound of each number, (N,) in [1, 2**32].
        before: first part of the keys.
        names: second part, N of them.
        after: the other parts.
    """
    bounds = below.astype(np.uint64)
    products = (_first_words(_keys(before, names, after)) & _LOW) * bounds
    drawn = (products >> _HALF).astype(np.int64)
    for at in np.flatnonzero((products & _LOW) < bounds).tolist():
        drawn[at] = keyed_rng(before, names[at], *after).integers(below[at])
    return drawn


def _keys(before: Key, names: Iterable[str], after: Iterable[Key]) -> _Words:
    """The keys of `keyed_rng` (before, name, *after) for Philox, (2, N)."""
    begun, end = hashlib.blake2b(_hashed(before), digest_size=16), b"".join(map(_hashed, after))
    digests = list[bytes]()
    for name in names:
        one = begun.copy()
        one.update(_hashed(name) + end)
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2).T


def _first_words(keys: _Words) -> _Words:
    """The first 64 bits that Philox-4x64-10 gives for each key, (2, N): those of counter 1.

    Salmon et al., section 3.3; the words of its counter in its order, 0 to 3.
    """
    count = keys.shape[1]
    words = [np.full(count, value, np.uint64) for value in (1, 0, 0, 0)]
    for number in range(_ROUNDS):
        low, high = keys + np.uint64(number) * _WEYL[:, None]
        one, other = (_products(m, words[at]) for m, at in zip(_MULTIPLIERS, (0, 2), strict=True))
        words = [other[0] ^ words[1] ^ low, other[1], one[0] ^ words[3] ^ high, one[1]]
    return words[0]


def _products(number: np.uint64, words: _Words) -> tuple[_Words, _Words]:
    """The upper and the lower 64 bits of ``number`` times each of ``words``."""
    low, high = number & _LOW, number >> _HALF
    words_low, words_high = words & _LOW, words >> _HALF
    middle = high * words_low + (low * words_low >> _HALF)
    other = low * words_high + (middle & _LOW)
    return high * words_high + (middle >> _HALF) + (other >> _HALF), number * words


def _hashed(part: Key) -> bytes:
    """A part as it is hashed: its type, as one byte, its length and its value."""
    if isinstance(part, str):
        tag, body = b"s", part.encode("utf-8", "surrogateescape")
    elif isinstance(part, bytes):
        tag, body = b"b", part
    else:
        tag, body = b"i", str(int(part)).encode()
    return tag + len(body).to_bytes(8, "little") + body
