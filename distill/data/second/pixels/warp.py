"""Moving pixels: bilinear sampling, affine matrices, the similarity of two sets of points."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled

TAPS = 9
"""Places along the edge that one outside the image is the mean of."""


@compiled
def sample(image: Any, x: Any, y: Any, pixel: Any) -> None:
    """Bilinear colour of a uint8 image at (x, y) into ``pixel`` (3,).

    Outside, the edge is repeated, and the more out of focus the further away: a mean of `TAPS`
    along the edge, as wide to each side as the place is far from it. Repeated sharp, single
    pixels would become streaks.
    """
    height, width = image.shape[:2]
    inside_x = min(max(x, 0.0), width - 1.0)
    inside_y = min(max(y, 0.0), height - 1.0)
    aside, above = abs(x - inside_x), abs(y - inside_y)
    pixel[:] = 0
    if max(aside, above) < 1:
        _add(image, inside_x, inside_y, 1.0, pixel)
        return
    for i in range(TAPS):
        at = 2 * (i + 0.5) / TAPS - 1
        dx, dy = (0.0, at * aside) if aside > above else (at * above, 0.0)
        tap_x = min(max(inside_x + dx, 0.0), width - 1.0)
        tap_y = min(max(inside_y + dy, 0.0), height - 1.0)
        _add(image, tap_x, tap_y, 1 / TAPS, pixel)


@compiled
def _add(image: Any, x: Any, y: Any, share: Any, pixel: Any) -> None:
    """A share of the colour at (x, y), inside the image, to ``pixel``."""
    height, width = image.shape[:2]
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    u, v = x - left, y - top
    for c in range(3):
        upper = image[top, left, c] * (1 - u) + image[top, right, c] * u
        lower = image[bottom, left, c] * (1 - u) + image[bottom, right, c] * u
        pixel[c] += share * (upper * (1 - v) + lower * v)


@compiled
def warped(image: Any, matrix: Any, out: Any) -> None:
    """``image`` moved by a (2, 3) matrix into ``out``, both uint8; its edge repeated outside."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 0], matrix[1, 1], matrix[1, 2]
    one = 1.0 / (a * e - b * d)
    pixel = np.empty(3, np.float64)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            x, y = column - c, row - f
            sample(image, (e * x - b * y) * one, (a * y - d * x) * one, pixel)
            for k in range(3):
                out[row, column, k] = np.uint8(pixel[k] + 0.5)


@compiled
def moved(matrix: Any, points: Any, out: Any) -> None:
    """(N, 2) points under a (2, 3) matrix."""
    for i in range(len(points)):
        x, y = np.float64(points[i, 0]), np.float64(points[i, 1])
        out[i, 0] = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
        out[i, 1] = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]


@compiled
def similarity(source: Any, target: Any) -> Any:
    """The turn, scale and shift that bring ``source`` closest to ``target``, (2, 3).

    Least squares over the complex plane: target = z source + shift. Coinciding points give the
    shift alone.
    """
    n = len(source)
    sx = sy = tx = ty = 0.0
    for i in range(n):
        sx, sy = sx + source[i, 0] / n, sy + source[i, 1] / n
        tx, ty = tx + target[i, 0] / n, ty + target[i, 1] / n
    dot = cross = square = 0.0
    for i in range(n):
        px, py = source[i, 0] - sx, source[i, 1] - sy
        qx, qy = target[i, 0] - tx, target[i, 1] - ty
        dot, cross = dot + px * qx + py * qy, cross + px * qy - py * qx
        square += px * px + py * py
    a, b = 1.0, 0.0
    if square > 1e-6 and dot * dot + cross * cross > 1e-6 * square * square:
        a, b = dot / square, cross / square
    matrix = np.empty((2, 3), np.float64)
    matrix[0] = a, -b, tx - a * sx + b * sy
    matrix[1] = b, a, ty - b * sx - a * sy
    return matrix


@compiled
def about(cx: Any, cy: Any, linear: Any, dx: Any, dy: Any) -> Any:
    """The (2, 3) matrix that applies a (2, 2) one about a centre, and then shifts."""
    matrix = np.empty((2, 3), np.float64)
    matrix[:, :2] = linear
    matrix[0, 2] = cx - linear[0, 0] * cx - linear[0, 1] * cy + dx
    matrix[1, 2] = cy - linear[1, 0] * cx - linear[1, 1] * cy + dy
    return matrix
