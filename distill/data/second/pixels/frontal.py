"""A turned head turned back to the front, over a mean surface of faces.

The idea is that of Hassner et al., "Effective Face Frontalization in Unconstrained Images" (CVPR
2015): one surface for all faces, the pose from landmarks, and what is hidden taken from the other
half of the face. The surface here is an ellipsoid with a nose and lips, in the coordinates of
`face.plane_of`, with z towards the camera: x to the right eye as seen, y down, the origin between
the eyes, and the distance between the eyes as the unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled
from distill.data.second.pixels import warp
from distill.data.second.pixels.filters import step

MAX_TURN_DEGREES = 55
"""Heads turned further are left alone: of a profile, the middle of the face is not seen."""
ORIGIN, UNIT = np.array([55.91, 51.6]) / 112, 35.24 / 112
"""The origin and the unit on the template, as shares of the side."""
NODES = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.571, 0.44], [-0.414, 1.155, -0.04], [0.414, 1.155, -0.04]]
)
"""The five points in space: those of the template, made symmetric, on the surface."""
HALF_WIDTH, HALF_HEIGHT, HALF_DEPTH, MIDDLE_Y = 1.1, 1.75, 1.25, 0.35
"""Half axes of the ellipsoid, and how far its middle lies below the eyes."""
EYE_DEPTH = 1.0895
"""z of the ellipsoid at the eyes, from its own middle: the surface has z = 0 there."""
FLOOR, FLOOR_SOFTNESS, RISE = -0.9, 0.2, 0.35
"""How far back ears and background lie, how gently the face gets there, how much nearer the
background comes towards the edges of the image."""
NOSE_TIP_Y, NOSE_END_Y, NOSE_HEIGHT = 0.58, 0.8, 0.28
LIPS_Y, LIPS_HEIGHT = 1.15, 0.08
PITCH_DOUBT = 0.5
"""Weight of the square of pitch (radians) against the squared distances of five points (units):
the length of a nose looks like pitch, so that a small one is not believed."""
SEEN_FROM, SEEN_TO = 0.3, 0.6
"""Cosine to the camera below which a place counts as hidden, and from which on as seen."""
MIRROR_FROM_DEGREES, MIRROR_TO_DEGREES = 20, 27
"""Turn from which on hidden places are taken from the other half, and where all are."""


@compiled
def turned_to_front(image: Any, points: Any, out: Any, moved: Any) -> bool:
    """``image`` (S, S, 3) uint8 as seen from the front into ``out``, its points into ``moved``.

    What five points cannot tell stays: their distances from those of a mean face.

    Args:
        points: the five points of ``image``, (5, 2).

    Returns:
        Whether it was done; not of a head that is turned by more than `MAX_TURN_DEGREES`.
    """
    yaw, pitch = pose_of(points)
    if abs(yaw) > np.deg2rad(MAX_TURN_DEGREES):
        return False
    camera = _camera(yaw, pitch, points.astype(np.float64))
    size = image.shape[0]
    trust = 1.3 * (1 - step(abs(yaw) * 180 / np.pi, MIRROR_FROM_DEGREES, MIRROR_TO_DEGREES))
    cos, sin = np.cos(yaw), np.sin(yaw)
    own, other = np.zeros(3), np.zeros(3)
    for row in range(size):
        y = (row / size - ORIGIN[1]) / UNIT
        for column in range(size):
            x = (column / size - ORIGIN[0]) / UNIT
            z, nx, nz = surface(x, y)
            share = step(cos * nz - sin * nx + trust, SEEN_FROM, SEEN_TO)
            if share > 0:
                _look(image, camera, x, y, z, own)
            if share < 1:
                _look(image, camera, -x, y, z, other)
            for c in range(3):
                out[row, column, c] = np.uint8(share * own[c] + (1 - share) * other[c] + 0.5)
    _move(points, camera, size, moved)
    return True


@compiled
def pose_of(points: Any) -> Any:
    """Yaw and pitch in radians; least squares over a similarity of the turned `NODES`.

    Yaw is positive where the nose points to the right of the image, pitch where it points up. A
    coarse grid, then ever smaller steps from its best place.
    """
    target, flat = points.astype(np.float64), np.empty((5, 2))
    apart = np.deg2rad(10.0)
    yaw = pitch = 0.0
    best = np.inf
    for i in range(-8, 9):
        for j in range(-3, 4):
            cost = _cost(i * apart, j * apart, target, flat)
            if cost < best:
                best, yaw, pitch = cost, i * apart, j * apart
    while apart > 1e-3:
        apart *= 0.5
        at_yaw, at_pitch = yaw, pitch
        for i in range(-1, 2):
            for j in range(-1, 2):
                cost = _cost(at_yaw + i * apart, at_pitch + j * apart, target, flat)
                if cost < best:
                    best, yaw, pitch = cost, at_yaw + i * apart, at_pitch + j * apart
    return yaw, pitch


@compiled
def _cost(yaw: Any, pitch: Any, target: Any, flat: Any) -> Any:
    """Squared distances that a similarity leaves, in units, and what speaks against pitch."""
    m = _placed(_rotation(yaw, pitch), target, flat)
    left = 0.0
    for i in range(5):
        dx = m[0, 0] * flat[i, 0] + m[0, 1] * flat[i, 1] + m[0, 2] - target[i, 0]
        dy = m[1, 0] * flat[i, 0] + m[1, 1] * flat[i, 1] + m[1, 2] - target[i, 1]
        left += dx * dx + dy * dy
    return left / (m[0, 0] ** 2 + m[1, 0] ** 2) + PITCH_DOUBT * pitch * pitch


@compiled
def _rotation(yaw: Any, pitch: Any) -> Any:
    """The (2, 3) matrix from a turned head to what a distant camera sees of it, both in units."""
    matrix = np.empty((2, 3))
    matrix[0] = np.cos(yaw), 0.0, np.sin(yaw)
    matrix[1] = np.sin(pitch) * np.sin(yaw), np.cos(pitch), -np.sin(pitch) * np.cos(yaw)
    return matrix


@compiled
def _placed(rotation: Any, target: Any, flat: Any) -> Any:
    """The similarity from what is seen of the turned `NODES`, kept in ``flat``, to ``target``."""
    for i in range(5):
        for r in range(2):
            flat[i, r] = 0.0
            for c in range(3):
                flat[i, r] += rotation[r, c] * NODES[i, c]
    return warp.similarity(flat, target)


@compiled
def _camera(yaw: Any, pitch: Any, target: Any) -> Any:
    """The (2, 4) matrix from (x, y, z, 1) of the head to column and row of the photograph."""
    rotation = _rotation(yaw, pitch)
    m = _placed(rotation, target, np.empty((5, 2)))
    camera = np.empty((2, 4))
    for r in range(2):
        for c in range(3):
            camera[r, c] = m[r, 0] * rotation[0, c] + m[r, 1] * rotation[1, c]
        camera[r, 3] = m[r, 2]
    return camera


@compiled
def surface(x: Any, y: Any) -> Any:
    """Z of the surface at (x, y), and the x and z of its normal of length 1.

    Round the head z is that of the background, and the normal that of the nearest outline.
    """
    down = y - MIDDLE_Y
    square = (x / HALF_WIDTH) ** 2 + (down / HALF_HEIGHT) ** 2
    root = np.sqrt(max(1 - square, 0.0))
    z = HALF_DEPTH * root - EYE_DEPTH
    z = 0.5 * (z + FLOOR + np.sqrt((z - FLOOR) ** 2 + FLOOR_SOFTNESS**2))
    nx, ny, nz = x / HALF_WIDTH**2, down / HALF_HEIGHT**2, root / HALF_DEPTH
    if square > 1:
        z += RISE * step(np.sqrt(square), 1.0, 1.5)
    height, slope = _nose(x, y)
    z += height + LIPS_HEIGHT * _hill(x / 0.6) * _hill((y - LIPS_Y) / 0.44)
    nx -= slope * nz
    length = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
    return z, nx / length, nz / length


@compiled
def _nose(x: Any, y: Any) -> Any:
    """Height of the nose over the ellipsoid, and its slope along x: a ridge that ends below."""
    if y <= 0 or y >= NOSE_END_Y:
        return 0.0, 0.0
    along = min(y / NOSE_TIP_Y, 1.0)
    ridge = NOSE_HEIGHT * along * (1 - step(y, NOSE_TIP_Y, NOSE_END_Y))
    half = 2 * (0.13 + 0.08 * along)
    if abs(x) >= half:
        return 0.0, 0.0
    return ridge * _hill(x / half), -4 * ridge * x / half**2 * (1 - (x / half) ** 2)


@compiled
def _hill(at: Any) -> Any:
    """1 at 0, 0 from -1 and 1 on outwards, smooth."""
    return (1 - at * at) ** 2 if -1 < at < 1 else 0.0


@compiled
def _look(image: Any, camera: Any, x: Any, y: Any, z: Any, pixel: Any) -> None:
    """Colour of a place of the head into ``pixel``."""
    column = camera[0, 0] * x + camera[0, 1] * y + camera[0, 2] * z + camera[0, 3]
    row = camera[1, 0] * x + camera[1, 1] * y + camera[1, 2] * z + camera[1, 3]
    warp.sample(image, column, row, pixel)


@compiled
def _move(points: Any, camera: Any, size: Any, moved: Any) -> None:
    """Where the front view shows each of the points, which keep the depth of their nodes."""
    a, b, d, e = camera[0, 0], camera[0, 1], camera[1, 0], camera[1, 1]
    for i in range(5):
        dx = points[i, 0] - camera[0, 2] * NODES[i, 2] - camera[0, 3]
        dy = points[i, 1] - camera[1, 2] * NODES[i, 2] - camera[1, 3]
        moved[i, 0] = (ORIGIN[0] + UNIT * (e * dx - b * dy) / (a * e - b * d)) * size
        moved[i, 1] = (ORIGIN[1] + UNIT * (a * dy - d * dx) / (a * e - b * d)) * size
