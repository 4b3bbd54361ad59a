"""What JPEG does to pixels, without the coding: YCbCr, halved chroma, DCT, quantised, and back.

ITU-T T.81: the quantisation tables of its annex K, scaled by a quality as libjpeg scales them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.compiled import compiled

_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_PLACE = np.arange(8)
_DCT = (np.cos((2 * _PLACE[None, :] + 1) * _PLACE[:, None] * np.pi / 16) / 2).astype(np.float32)
_DCT[0] = np.float32(np.sqrt(0.125))


@compiled
def coded(image: Any, quality: Any, out: Any) -> None:
    """``image`` as it looks after JPEG at a quality of 1 .. 100 with 4:2:0 chroma."""
    height, width = image.shape[:2]
    rows, columns = (height + 15) // 16 * 16, (width + 15) // 16 * 16
    planes = np.empty((3, rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            pixel = image[min(y, height - 1), min(x, width - 1)]
            r, g, b = np.float32(pixel[0]), np.float32(pixel[1]), np.float32(pixel[2])
            planes[0, y, x] = np.rint(0.299 * r + 0.587 * g + 0.114 * b) - 128
            planes[1, y, x] = np.rint(-0.168736 * r - 0.331264 * g + 0.5 * b)
            planes[2, y, x] = np.rint(0.5 * r - 0.418688 * g - 0.081312 * b)
    scale = 5000.0 / quality if quality < 50 else 200.0 - 2.0 * quality
    _quantised(planes[0], _table(_LUMA, scale))
    for c in (1, 2):
        half = _halved(planes[c])
        _quantised(half, _table(_CHROMA, scale))
        _doubled(half, planes[c])
    for y in range(height):
        for x in range(width):
            light, blue, red = planes[0, y, x] + 128.5, planes[1, y, x], planes[2, y, x]
            out[y, x, 0] = np.uint8(min(max(light + 1.402 * red, 0), 255))
            out[y, x, 1] = np.uint8(min(max(light - 0.344136 * blue - 0.714136 * red, 0), 255))
            out[y, x, 2] = np.uint8(min(max(light + 1.772 * blue, 0), 255))


@compiled
def _table(base: Any, scale: Any) -> Any:
    """The quantisation steps of a quality."""
    steps = np.empty((8, 8), np.float32)
    for i in range(8):
        for j in range(8):
            steps[i, j] = min(max(np.floor((base[i, j] * scale + 50) / 100), 1), 255)
    return steps


@compiled
def _halved(plane: Any) -> Any:
    """Means of 2 by 2 pixels, its size filled up to whole blocks."""
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    half = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            above = plane[2 * y, 2 * x] + plane[2 * y, 2 * x + 1]
            below = plane[2 * y + 1, 2 * x] + plane[2 * y + 1, 2 * x + 1]
            half[y, x] = np.floor(0.25 * (above + below) + 0.375 + 0.25 * (x % 2))
    return half


@compiled
def _doubled(half: Any, plane: Any) -> None:
    """Twice the size, by libjpeg's triangle filter: 3/4 of the nearer and 1/4 of the further."""
    height, width = half.shape
    for y in range(2 * height):
        near_y = y // 2
        far_y = min(max(near_y + (1 if y % 2 else -1), 0), height - 1)
        for x in range(2 * width):
            near_x = x // 2
            far_x = min(max(near_x + (1 if x % 2 else -1), 0), width - 1)
            near = 0.75 * half[near_y, near_x] + 0.25 * half[near_y, far_x]
            far = 0.75 * half[far_y, near_x] + 0.25 * half[far_y, far_x]
            plane[y, x] = 0.75 * near + 0.25 * far


@compiled
def _quantised(plane: Any, steps: Any) -> None:
    """Every block of 8 by 8 pixels to its nearest quantised one, in place."""
    block, other = np.empty((8, 8), np.float32), np.empty((8, 8), np.float32)
    for top in range(0, plane.shape[0], 8):
        for left in range(0, plane.shape[1], 8):
            part = plane[top : top + 8, left : left + 8]
            _product(_DCT, part, False, other)
            _product(other, _DCT, True, block)
            for i in range(8):
                for j in range(8):
                    block[i, j] = np.rint(block[i, j] / steps[i, j]) * steps[i, j]
            _transposed_product(_DCT, block, other)
            _product(other, _DCT, False, part)
            for i in range(8):
                for j in range(8):
                    part[i, j] = min(max(np.rint(part[i, j]), -128), 127)


@compiled
def _product(left: Any, right: Any, transpose: Any, out: Any) -> None:
    """Left @ right, or left @ right.T; all 8 by 8."""
    for i in range(8):
        for j in range(8):
            total = np.float32(0)
            for k in range(8):
                total += left[i, k] * (right[j, k] if transpose else right[k, j])
            out[i, j] = total


@compiled
def _transposed_product(left: Any, right: Any, out: Any) -> None:
    """left.T @ right; all 8 by 8."""
    for i in range(8):
        for j in range(8):
            total = np.float32(0)
            for k in range(8):
                total += left[k, i] * right[k, j]
            out[i, j] = total
