"""Machine code from Python: numba functions that release the GIL and are kept on disk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """``function`` as machine code that releases the GIL, kept on disk where there is a place.

    Numba keeps it beside the function's file or below the user's cache folder; on a machine where
    neither can be written, every process compiles for itself. Compiled functions call others
    only within their folder, and numba would not notice that one of those has changed; so what
    is kept counts as stale as soon as any file of the folder is newer.
    """
    try:
        made = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return njit(nogil=True, error_model="numpy")(function)
    stamp = _stamp(Path(function.__code__.co_filename).parent)
    made._cache._cache_file._source_stamp = stamp
    return made


@functools.cache
def _stamp(folder: Path) -> tuple[int, int]:
    """Newest change of a folder's modules, in nanoseconds, and their size in bytes."""
    states = [path.stat() for path in folder.glob("*.py")]
    return max(s.st_mtime_ns for s in states), sum(s.st_size for s in states)
