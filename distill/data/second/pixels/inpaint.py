"""Holes in a face, filled from around them."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels.draws import grainy
from distill.data.second.pixels.filters import mix_in

RELAXED = 12
"""Rounds of smoothing of what was filled."""


@compiled
def fill(p: Any, look: Any, mask: Any, top: Any, bottom: Any, key: Any, out: Any) -> None:
    """From the rim of the hole inwards, each pixel the weighted mean of the known ones near it.

    After Telea, "An image inpainting technique based on the fast marching method", J. Graphics
    Tools 9(1), 2004, with layers of neighbours for the marching front and without its gradient
    term; then the photo's own grain.
    """
    size = p.size
    reach = max(3, round(0.12 * p.unit))
    layer = mask.copy()
    left = 1
    while left:
        left = 0
        for row in range(top, bottom):
            for column in range(size):
                if layer[row, column] == 1 and _touches(layer, row, column):
                    layer[row, column] = 2
                    left += 1
        for row in range(top, bottom):
            for column in range(size):
                if layer[row, column] == 2:
                    _average(out, layer, row, column, reach)
        for row in range(top, bottom):
            for column in range(size):
                if layer[row, column] == 2:
                    layer[row, column] = 0
    _relax(mask, top, bottom, out)
    for row in range(top, bottom):
        for column in range(size):
            if mask[row, column]:
                noise = 0.4 * look.grain * grainy(key, column, row)
                pixel = out[row, column]
                mix_in(out, row, column, pixel[0] + noise, pixel[1] + noise, pixel[2] + noise, 1.0)


@compiled
def _relax(mask: Any, top: Any, bottom: Any, out: Any) -> None:
    """Smooths the filled pixels, so that no seam is left between a tinted lens and its shadow.

    Gauss-Seidel rounds on Laplace's equation.
    """
    values = out[top:bottom].astype(np.float32)
    height, width = values.shape[:2]
    for _ in range(RELAXED):
        for y in range(height):
            for x in range(width):
                if not mask[top + y, x]:
                    continue
                above, below = values[max(y - 1, 0), x], values[min(y + 1, height - 1), x]
                left, right = values[y, max(x - 1, 0)], values[y, min(x + 1, width - 1)]
                for c in range(3):
                    values[y, x, c] = 0.25 * (above[c] + below[c] + left[c] + right[c])
    for y in range(height):
        for x in range(width):
            if mask[top + y, x]:
                for c in range(3):
                    out[top + y, x, c] = np.uint8(values[y, x, c] + 0.5)


@compiled
def _touches(layer: Any, row: Any, column: Any) -> Any:
    """Whether a neighbour is known."""
    height, width = layer.shape
    known = layer[max(row - 1, 0), column] == 0 or layer[min(row + 1, height - 1), column] == 0
    return (
        known or layer[row, max(column - 1, 0)] == 0 or layer[row, min(column + 1, width - 1)] == 0
    )


@compiled
def _average(out: Any, layer: Any, row: Any, column: Any, reach: Any) -> None:
    """Mean of the known pixels near by, the nearest counting most."""
    r = g = b = total = 0.0
    for i in range(max(0, row - reach), min(layer.shape[0], row + reach + 1)):
        for j in range(max(0, column - reach), min(layer.shape[1], column + reach + 1)):
            if layer[i, j] != 0:
                continue
            square = (i - row) ** 2 + (j - column) ** 2
            weight = 1.0 / (square * square)
            r, g, b = (
                r + weight * out[i, j, 0],
                g + weight * out[i, j, 1],
                b + weight * out[i, j, 2],
            )
            total += weight
    if total > 0:
        mix_in(out, row, column, r / total, g / total, b / total, 1.0)
