"""Random numbers inside compiled code: counter-based, a pure function of a 64-bit key.

SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): its
state is a counter, so a stream is its key and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_PRIME_X, _PRIME_Y = np.uint64(0x8CB92BA72F3D8DD7), np.uint64(0xD6E8FEB86659FD93)


@compiled
def mixed(x: Any) -> Any:
    """The finaliser of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    return x ^ (x >> np.uint64(31))


@compiled
def joined(key: Any, part: Any) -> Any:
    """A key made of a key and one more number, as in `distill.data.augment.draws`."""
    return mixed(mixed(key + GOLDEN) ^ np.uint64(part))


@compiled
def stream(key: Any) -> Any:
    """A stream of numbers: its state is one counter."""
    state = np.empty(1, np.uint64)
    state[0] = key
    return state


@compiled
def bits(state: Any) -> Any:
    """The next 64 random bits."""
    state[0] = state[0] + GOLDEN
    return mixed(state[0])


@compiled
def uniform(state: Any) -> Any:
    """The next number, uniform in [0, 1)."""
    return np.float64(bits(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled
def between(state: Any, low: Any, high: Any) -> Any:
    """The next number, uniform in [low, high)."""
    return low + (high - low) * uniform(state)


@compiled
def choice(state: Any, count: Any) -> Any:
    """The next whole number in [0, count)."""
    return int(uniform(state) * count)


@compiled
def choice_of(state: Any, allowed: Any) -> Any:
    """The place of one of the bits that are set in ``allowed``, each as likely as the others."""
    count = 0
    for place in range(62):
        count += (allowed >> place) & 1
    wanted = choice(state, count)
    for place in range(62):
        if (allowed >> place) & 1:
            if wanted == 0:
                return place
            wanted -= 1
    return 0


@compiled
def hashed(key: Any, x: Any, y: Any) -> Any:
    """64 bits for a point of a lattice."""
    return mixed(key ^ (np.uint64(np.int64(x)) * _PRIME_X) ^ (np.uint64(np.int64(y)) * _PRIME_Y))


@compiled
def grainy(key: Any, x: Any, y: Any) -> Any:
    """Nearly normal noise for a pixel, mean 0, deviation 1: four uniform numbers summed."""
    h = hashed(key, x, y)
    total = np.float64(h & np.uint64(0xFFFF)) + np.float64((h >> np.uint64(16)) & np.uint64(0xFFFF))
    total += np.float64((h >> np.uint64(32)) & np.uint64(0xFFFF)) + np.float64(h >> np.uint64(48))
    return (total - 131070.0) * (1.0 / 37837.23)  # deviation of the sum: 65536 * sqrt(4 / 12)


@compiled
def hills(key: Any, x: Any, y: Any) -> Any:
    """Smooth noise over the plane: hills one unit wide, mean 0, deviation about 1.2.

    Value noise (Perlin's quintic between random heights on a lattice; "Improving noise", 2002).
    """
    left, top = np.floor(x), np.floor(y)
    u, v = x - left, y - top
    u, v = u * u * u * (u * (u * 6 - 15) + 10), v * v * v * (v * (v * 6 - 15) + 10)
    upper = grainy(key, left, top) * (1 - u) + grainy(key, left + 1, top) * u
    lower = grainy(key, left, top + 1) * (1 - u) + grainy(key, left + 1, top + 1) * u
    return 1.5 * (upper * (1 - v) + lower * v)
