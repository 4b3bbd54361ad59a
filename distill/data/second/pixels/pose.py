"""`pose`: another photo of the same person, pulled towards the frontal template."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels import warp
from distill.data.second.pixels.draws import between, choice_of
from distill.data.second.pixels.frontal import turned_to_front

FRONTAL, SIMILARITY, AFFINE, PIECEWISE = range(4)
RANDOM = 4
MAX_STRETCH = 1.5
"""Largest ratio of the two axes of an affine warp: a profile is not drawn into a front view."""
MAX_AREA = 1.8
"""Largest growth of a triangle of the piecewise warp, and as its inverse the smallest."""
STEPS = 20
"""Mixtures with a tamer warp that are tried."""
_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)  # as faces.TEMPLATE, which a test compares
_BORDER = np.array(
    [[-8, -8], [56, -8], [120, -8], [-8, 56], [120, 56], [-8, 120], [56, 120], [120, 120]],
    np.float64,
)
NODES = np.concatenate((_TEMPLATE, _BORDER)) / 112
"""Corners of the mesh as shares of the side: the five points, and eight round the image."""
TRIANGLES = np.array(
    [
        [0, 1, 2], [0, 2, 3], [1, 4, 2], [2, 4, 3], [0, 6, 1], [0, 5, 6], [1, 6, 7], [0, 8, 5],
        [0, 3, 8], [1, 7, 9], [1, 9, 4], [3, 10, 8], [3, 11, 10], [3, 4, 11], [4, 12, 11],
        [4, 9, 12],
    ],
    np.int64,
)  # fmt: skip
"""Corners of each triangle, in one sense of rotation."""


@compiled
def pose(
    image: Any, points: Any, other: Any, others: Any, has_other: Any, worn: Any, options: Any,
    state: Any, out: Any, moved: Any, told: Any,
) -> None:  # fmt: skip
    """``other`` warped to the template, or a random affine of ``image``; see `kinds`."""
    o = options[0]
    style = choice_of(state, o.pose_styles)
    size = image.shape[0]
    if not has_other:
        told[0] = RANDOM
        matrix = _random_affine(size, o, state)
        warp.warped(image, matrix, out)
        warp.moved(matrix, points, moved)
        return
    if style == FRONTAL:
        if turned_to_front(other, others, out, moved):
            told[0] = FRONTAL
            return
        style = SIMILARITY  # of a profile there is no front view
    told[0] = style
    rigid = warp.similarity(others.astype(np.float64), NODES[:5] * size)
    matrix = rigid if style == SIMILARITY else tamed(affine(others, NODES[:5] * size), rigid)
    warp.moved(matrix, others, moved)
    if style == PIECEWISE:
        _piecewise(other, matrix, moved, out)
    else:
        warp.warped(other, matrix, out)


@compiled
def affine(source: Any, target: Any) -> Any:
    """The (2, 3) matrix of least squares: six unknowns, ten equations, by normal equations."""
    n = len(source)
    centre, aim = np.zeros(2), np.zeros(2)
    for i in range(n):
        for c in range(2):
            centre[c] += source[i, c] / n
            aim[c] += target[i, c] / n
    gram, mixed = np.zeros((2, 2)), np.zeros((2, 2))
    for i in range(n):
        for r in range(2):
            for c in range(2):
                gram[r, c] += (source[i, r] - centre[r]) * (source[i, c] - centre[c])
                mixed[r, c] += (target[i, r] - aim[r]) * (source[i, c] - centre[c])
    matrix = np.empty((2, 3))
    det = gram[0, 0] * gram[1, 1] - gram[0, 1] * gram[1, 0]
    if det < 1e-6 * (gram[0, 0] + gram[1, 1]) ** 2 + 1e-12:
        det = np.nan  # the points lie on a line: `tamed` refuses this
    for r in range(2):
        matrix[r, 0] = (mixed[r, 0] * gram[1, 1] - mixed[r, 1] * gram[1, 0]) / det
        matrix[r, 1] = (mixed[r, 1] * gram[0, 0] - mixed[r, 0] * gram[0, 1]) / det
        matrix[r, 2] = aim[r] - matrix[r, 0] * centre[0] - matrix[r, 1] * centre[1]
    return matrix


@compiled
def tamed(full: Any, rigid: Any) -> Any:
    """``full``, mixed with ``rigid`` until it neither mirrors a face nor stretches it too much."""
    for i in range(STEPS):
        mixture = rigid + (1 - i / STEPS) * (full - rigid)
        a, b, c, d = mixture[0, 0], mixture[0, 1], mixture[1, 0], mixture[1, 1]
        det, total = a * d - b * c, a * a + b * b + c * c + d * d
        # Singular values l >= s: l s = det, l^2 + s^2 = total; so l / s <= m as below.
        if det > 0 and total <= (MAX_STRETCH + 1 / MAX_STRETCH) * det:
            return mixture
    return rigid


@compiled
def _piecewise(image: Any, matrix: Any, moved: Any, out: Any) -> None:
    """Each triangle of the template's mesh filled from where its corners are in ``image``.

    ``moved`` holds the five points after the affine ``matrix``; what they still lack to the
    template is taken up by the mesh, in full where no triangle grows or shrinks by more than
    `MAX_AREA`, and else in part. Then ``moved`` says where the points have come to.
    """
    size = image.shape[0]
    target, corners = NODES * size, NODES * size
    share = 1.0
    for i in range(STEPS + 1):
        share = 1 - i / STEPS
        for k in range(5):
            for c in range(2):
                corners[k, c] = target[k, c] + share * (moved[k, c] - target[k, c])
        if _tame(target, corners):
            break
    one = 1.0 / (matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    pixel = np.empty(3, np.float64)
    weights = np.empty(3, np.float64)
    for row in range(size):
        last = 0
        for column in range(size):
            last = _triangle_of(target, last, column, row, weights)
            x = y = 0.0
            for k in range(3):
                x += weights[k] * corners[TRIANGLES[last, k], 0]
                y += weights[k] * corners[TRIANGLES[last, k], 1]
            x, y = x - matrix[0, 2], y - matrix[1, 2]
            u = (matrix[1, 1] * x - matrix[0, 1] * y) * one
            v = (matrix[0, 0] * y - matrix[1, 0] * x) * one
            warp.sample(image, u, v, pixel)
            for c in range(3):
                out[row, column, c] = np.uint8(pixel[c] + 0.5)
    for k in range(5):
        for c in range(2):
            moved[k, c] = moved[k, c] + share * (target[k, c] - moved[k, c])


@compiled
def _area(nodes: Any, triangle: Any) -> Any:
    """Twice the signed area."""
    a, b, c = nodes[triangle[0]], nodes[triangle[1]], nodes[triangle[2]]
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


@compiled
def _tame(target: Any, corners: Any) -> Any:
    """Whether no triangle folds, or changes its area too much."""
    for i in range(len(TRIANGLES)):
        ratio = _area(corners, TRIANGLES[i]) / _area(target, TRIANGLES[i])
        if not (1 / MAX_AREA <= ratio <= MAX_AREA):
            return False
    return True


@compiled
def _triangle_of(nodes: Any, guess: Any, x: Any, y: Any, weights: Any) -> Any:
    """The triangle that holds (x, y), and the shares of its corners; tried from ``guess`` on."""
    count = len(TRIANGLES)
    for i in range(count):
        number = (guess + i) % count
        a = nodes[TRIANGLES[number, 0]]
        b = nodes[TRIANGLES[number, 1]]
        c = nodes[TRIANGLES[number, 2]]
        whole = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        weights[1] = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / whole
        weights[2] = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / whole
        weights[0] = 1 - weights[1] - weights[2]
        if weights.min() >= -1e-9:
            return number
    return guess


@compiled
def _random_affine(size: Any, o: Any, state: Any) -> Any:
    """A turn, a scale along each axis, a shear and a shift, about the middle of the image."""
    turn = np.deg2rad(between(state, -1.0, 1.0) * o.pose_degrees)
    shear = between(state, -1.0, 1.0) * o.pose_shear
    wide = between(state, o.pose_scale[0], o.pose_scale[1])
    high = between(state, o.pose_scale[0], o.pose_scale[1])
    linear = np.empty((2, 2))
    c, s = np.cos(turn), np.sin(turn)
    linear[0] = c * wide, (c * shear - s) * high
    linear[1] = s * wide, (s * shear + c) * high
    reach = o.pose_shift * size / 112
    dx, dy = between(state, -reach, reach), between(state, -reach, reach)
    return warp.about((size - 1) / 2, (size - 1) / 2, linear, dx, dy)
