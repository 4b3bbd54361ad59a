"""Random numbers that depend on a key alone: not on time, process, worker or order of work."""

from __future__ import annotations

import hashlib

import numpy as np

Key = int | str | bytes


def keyed_rng(*key: Key) -> np.random.Generator:
    """A generator whose stream is a pure function of ``key``.

    Philox (counter-based; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
    keyed by the first 128 bits of BLAKE2b over the parts. Each part is hashed with its type and
    its length, so ``(1, 23)``, ``(12, 3)`` and ``("1", "23")`` are three different keys.

    Args:
        key: e.g. ``(seed, sample index, "forehead")``.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in key:
        tag, body = _tagged(part)
        digest.update(tag + len(body).to_bytes(8, "little") + body)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))


def _tagged(part: Key) -> tuple[bytes, bytes]:
    """The type of a part, as one byte, and its value as bytes."""
    if isinstance(part, bytes):
        return b"b", part
    if isinstance(part, str):
        return b"s", part.encode("utf-8", "surrogateescape")
    return b"i", str(int(part)).encode()
