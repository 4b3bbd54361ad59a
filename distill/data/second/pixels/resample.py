"""Filters that work on rows and columns one after the other, each as a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.filters import mirrored, turned


@compiled
def through(matrix: Any, image: Any) -> Any:
    """Matrix @ image along rows and along columns; float32 (n, m) and (m, m, 3) to (n, n, 3)."""
    return turned(_down(matrix, turned(_down(matrix, image))))


@compiled
def _down(matrix: Any, image: Any) -> Any:
    """Each new row as a sum of old ones; zeros of the matrix cost nothing."""
    n = matrix.shape[0]
    height, width, channels = image.shape
    flat = image.reshape(height, width * channels)
    out = np.zeros((n, width * channels), np.float32)
    for y in range(n):
        line = out[y]
        for k in range(height):
            weight = matrix[y, k]
            if weight != 0:
                source = flat[k]
                for i in range(width * channels):
                    line[i] += weight * source[i]
    return out.reshape(n, width, channels)


@compiled
def gaussian(n: Any, sigma: Any) -> Any:
    """(n, n): Gaussian blur that mirrors at the border; sigma in pixels."""
    matrix = np.zeros((n, n), np.float32)
    reach = int(np.ceil(3.5 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for y in range(n):
        for k in range(2 * reach + 1):
            matrix[y, mirrored(y + k - reach, n)] += np.float32(weights[k])
    return matrix


@compiled
def reduction(n: Any, m: Any) -> Any:
    """(m, n): fewer pixels, each the mean of the area it covers."""
    matrix = np.zeros((m, n), np.float32)
    for y in range(m):
        low, high = y * n / m, (y + 1) * n / m
        for k in range(int(low), min(n, int(np.ceil(high)))):
            matrix[y, k] = max(0.0, min(high, k + 1.0) - max(low, k)) * m / n
    return matrix


@compiled
def enlargement(m: Any, n: Any) -> Any:
    """(n, m): more pixels, by cubic convolution with a = -0.5.

    Keys, "Cubic convolution interpolation for digital image processing", IEEE ASSP 29(6), 1981.
    """
    matrix = np.zeros((n, m), np.float32)
    for y in range(n):
        at = (y + 0.5) * m / n - 0.5
        first = int(np.floor(at))
        for k in range(first - 1, first + 3):
            d = abs(at - k)
            weight = 1.5 * d**3 - 2.5 * d**2 + 1 if d < 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            matrix[y, min(max(k, 0), m - 1)] += np.float32(weight)
    return matrix
