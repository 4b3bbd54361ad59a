"""Small random changes of a pair, a pure function of (seed, epoch, sample): plain numpy.

A pair is mirrored or not, both images together; each image is shifted by whole pixels (its edge
repeated), and its contrast and brightness are scaled about mid-grey and black. Everything is
integer arithmetic, so that every reader gives the same pixels to the last bit. `kernels` applies
the same numbers in compiled code; this file is its oracle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.config.tree import DataConfig
from distill.data.mixing import GOLDEN, mixed

ONE = 1 << 16
"""Gain 1.0 in fixed point."""

_DRAWS = 9


class Amplitudes(NamedTuple):
    """How far changes may go.

    Attributes:
        flip: chance of a mirrored pair, times 2^32.
        shift: largest translation, pixels.
        contrast: largest relative change, times 2^16.
        brightness: likewise.
    """

    flip: int
    shift: int
    contrast: int
    brightness: int

    @classmethod
    def from_config(cls, data: DataConfig) -> Amplitudes:
        """The amplitudes that the settings ask for."""
        return cls(
            flip=round(data.flip_probability * 2**32),
            shift=data.shift_pixels,
            contrast=round(data.contrast * ONE),
            brightness=round(data.brightness * ONE),
        )


NONE = Amplitudes(0, 0, 0, 0)
"""No change at all, for evaluation."""


class Changes(NamedTuple):
    """What is done to each image, all (B, 2) int64: column 0 the first, column 1 the second image.

    Attributes:
        flip: 1 where it is mirrored.
        down: rows it moves down.
        right: columns it moves to the right, after mirroring.
        contrast: gain about mid-grey, times 2^16.
        brightness: gain about black, applied after it, times 2^16.
    """

    flip: Numbers
    down: Numbers
    right: Numbers
    contrast: Numbers
    brightness: Numbers


def draws(seed: int, epochs: int | Numbers, ids: Numbers) -> Numbers:
    """Independent uniform numbers in [0, 2^32), (B, 9) int64, keyed by (seed, epoch, id)."""
    key = np.asarray([seed % 2**64], np.uint64)
    for part in (np.atleast_1d(epochs).astype(np.uint64), ids.astype(np.uint64)):
        key = mixed(mixed(key + GOLDEN) ^ part)
    streams = np.arange(1, _DRAWS + 1, dtype=np.uint64) * GOLDEN
    return (mixed(key[:, None] + streams) >> np.uint64(32)).astype(np.int64)


def changes(seed: int, epochs: int | Numbers, ids: Numbers, amplitudes: Amplitudes) -> Changes:
    """What happens to the pairs ``ids``, (B,), in one epoch or each in its own, (B,)."""
    u = draws(seed, epochs, ids)
    flip = np.repeat((u[:, :1] < amplitudes.flip).astype(np.int64), 2, axis=1)
    span = 2 * amplitudes.shift + 1
    down, right = ((u[:, c : c + 2] * span >> 32) - amplitudes.shift for c in (1, 3))
    contrast = _gain(u[:, 5:7], amplitudes.contrast)
    brightness = _gain(u[:, 7:9], amplitudes.brightness)
    return Changes(flip, down, right, contrast, brightness)


def _gain(u: Numbers, amplitude: int) -> Numbers:
    """1 +- amplitude, uniformly, in fixed point."""
    return ONE + ((2 * (u >> 16) + 1 - ONE) * amplitude >> 16)


def tone(contrast: int, brightness: int) -> tuple[int, int]:
    """Gain and offset, both times 2^16, of ((v - 127.5) * contrast + 127.5) * brightness.

    They fit 32-bit arithmetic: a new value is (v * gain + offset) >> 16, clipped to 0 .. 255.
    """
    gain = (contrast * brightness + ONE // 2) >> 16
    offset = ((ONE - contrast) * 255 * brightness >> 17) + ONE // 2
    return gain, offset


def tone_table(contrast: int, brightness: int) -> npt.NDArray[np.uint8]:
    """The new value of each of the 256 values."""
    gain, offset = tone(contrast, brightness)
    table: npt.NDArray[np.uint8]
    table = np.clip((np.arange(256) * gain + offset) >> 16, 0, 255).astype(np.uint8)
    return table


def apply(
    rgb: npt.NDArray[np.uint8], change: Changes, row: int, which: int
) -> npt.NDArray[np.uint8]:
    """One image, (S, S, 3), changed as row ``row`` says and laid out (3, S, S)."""
    flip, down, right, contrast, brightness = (int(c[row, which]) for c in change)
    side = len(rgb)
    rows = np.clip(np.arange(side) - down, 0, side - 1)
    columns = np.clip(np.arange(side) - right, 0, side - 1)
    if flip:
        columns = side - 1 - columns
    moved = rgb[rows][:, columns]
    changed: npt.NDArray[np.uint8]
    changed = np.ascontiguousarray(tone_table(contrast, brightness)[moved].transpose(2, 0, 1))
    return changed
