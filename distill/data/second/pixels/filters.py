"""Blending, smoothing and convolution on images."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled


@compiled
def step(value: Any, start: Any, end: Any) -> Any:
    """0 at ``start``, 1 at ``end``, with level ends; either may be the larger."""
    t = (value - start) / (end - start)
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled
def clipped(value: Any, low: Any, high: Any) -> Any:
    """``value``, kept in [low, high]."""
    return min(max(value, low), high)


@compiled
def as_byte(value: Any) -> Any:
    """Rounded and kept in [0, 255]."""
    return np.uint8(min(max(value + 0.5, 0.0), 255.0))


@compiled
def luma(r: Any, g: Any, b: Any) -> Any:
    """Brightness (ITU-R BT.601)."""
    return 0.299 * r + 0.587 * g + 0.114 * b


@compiled
def mix_in(out: Any, row: Any, column: Any, r: Any, g: Any, b: Any, share: Any) -> None:
    """A colour over one pixel of a uint8 image; ``share`` in [0, 1]."""
    pixel = out[row, column]
    pixel[0] = as_byte(pixel[0] * (1.0 - share) + r * share)
    pixel[1] = as_byte(pixel[1] * (1.0 - share) + g * share)
    pixel[2] = as_byte(pixel[2] * (1.0 - share) + b * share)


@compiled
def mirrored(i: Any, n: Any) -> Any:
    """Index ``i`` reflected into 0 .. n - 1, the edge not repeated."""
    if n == 1:
        return 0
    period = 2 * n - 2
    i = i % period
    return period - i if i >= n else i


@compiled
def _box_columns(source: Any, radius: Any, out: Any) -> None:
    """Running mean over 2 radius + 1 pixels down every column, mirrored at the ends; (H, N)."""
    height, width = source.shape
    share = np.float32(1.0 / (2 * radius + 1))
    total = np.zeros(width, np.float32)
    for i in range(-radius, radius + 1):
        total += source[mirrored(i, height)]
    for y in range(height):
        enters, leaves = (
            source[mirrored(y + radius + 1, height)],
            source[mirrored(y - radius, height)],
        )
        line = out[y]
        for x in range(width):
            line[x] = total[x] * share
            total[x] += enters[x] - leaves[x]


@compiled
def turned(image: Any) -> Any:
    """Rows and columns swapped, (H, W, C) to (W, H, C)."""
    height, width, channels = image.shape
    out = np.empty((width, height, channels), np.float32)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                out[x, y, c] = image[y, x, c]
    return out


@compiled
def _three_boxes(image: Any, radius: Any, narrow: Any) -> None:
    """Three running means down the columns of (H, W, C), in place.

    ``narrow`` of them are of radius ``radius``, the others of one more.
    """
    flat = image.reshape(image.shape[0], image.shape[1] * image.shape[2])
    spare = np.empty_like(flat)
    _box_columns(flat, radius if narrow > 0 else radius + 1, spare)
    _box_columns(spare, radius if narrow > 1 else radius + 1, flat)
    _box_columns(flat, radius if narrow > 2 else radius + 1, spare)
    flat[:] = spare


@compiled
def smoothed(image: Any, sigma: Any) -> Any:
    """Wide Gaussian blur of a float32 (H, W, C) by three running means; for sigma above 2 pixels.

    Kovesi, "Fast almost-Gaussian filtering", DICTA 2010: boxes of two odd widths w and w + 2 whose
    variances (w^2 - 1) / 12 come closest to sigma^2 together.
    """
    width = int(np.sqrt(4.0 * sigma * sigma + 1.0))
    width -= 1 - width % 2
    lacking = 12.0 * sigma * sigma - 3.0 * (width * width - 1.0)
    narrow = 3 - min(round(lacking / (4.0 * width + 4.0)), 3)
    now = image.copy()
    _three_boxes(now, width // 2, narrow)
    across = turned(now)
    _three_boxes(across, width // 2, narrow)
    return turned(across)


@compiled
def convolved(image: Any, kernel: Any, out: Any) -> None:
    """A uint8 image under a small kernel of odd side, mirrored at the border."""
    height, width, channels = image.shape
    reach = kernel.shape[0] // 2
    padded = np.empty((height + 2 * reach, (width + 2 * reach) * channels), np.float32)
    for y in range(height + 2 * reach):
        for x in range(width + 2 * reach):
            pixel = image[mirrored(y - reach, height), mirrored(x - reach, width)]
            for c in range(channels):
                padded[y, x * channels + c] = pixel[c]
    total = np.empty(width * channels, np.float32)
    for y in range(height):
        total[:] = np.float32(0.5)
        for i in range(2 * reach + 1):
            for j in range(2 * reach + 1):
                weight = kernel[i, j]
                if weight != 0:
                    line = padded[y + i, j * channels : (j + width) * channels]
                    for k in range(width * channels):
                        total[k] += weight * line[k]
        for x in range(width):
            for c in range(channels):
                out[y, x, c] = np.uint8(min(max(total[x * channels + c], 0), 255))


@compiled
def as_floats(image: Any) -> Any:
    """A float32 copy."""
    return image.astype(np.float32)


@compiled
def order_of(values: Any, count: Any) -> Any:
    """Places of the first ``count`` values from the smallest to the largest, (count,) int64.

    By insertion: for a few hundred values, and much quicker to compile than numpy's sorts.
    """
    order = np.empty(count, np.int64)
    for i in range(count):
        k = i
        while k > 0 and values[order[k - 1]] > values[i]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = i
    return order


@compiled
def median(values: Any, count: Any) -> Any:
    """The middle one of the first ``count`` values, at least one; of two, the upper."""
    return values[order_of(values, count)[count // 2]]
