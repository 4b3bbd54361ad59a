"""Machine code from Python: numba functions that release the GIL and are kept on disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event

from distill.data.compiled_once import CompiledOnce

COMPILING = "compiling what changes pixels: once on this machine, it takes minutes"
"""What to tell who waits, see `told_of_compiling`."""


def compiled(function: Callable[..., Any]) -> Any:
    """``function`` as machine code that releases the GIL, kept on disk where there is a place.

    Numba keeps it beside the function's file or below the user's cache folder; on a machine where
    neither can be written, every process compiles for itself. Compiled functions call others
    only within their folder, and numba would not notice that one of those has changed; so what
    is kept counts as stale as soon as any file of the folder is newer. Of processes that need it at
    the same time one compiles (`CompiledOnce`).
    """
    try:
        made = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return njit(nogil=True, error_model="numpy")(function)
    stamp = _stamp(Path(function.__code__.co_filename).parent)
    made._cache._cache_file._source_stamp = stamp
    made._cache = CompiledOnce(made._cache)
    return made


def is_compiled_elsewhere(function: Any) -> bool:
    """Whether another process is compiling this function right now."""
    return isinstance(function._cache, CompiledOnce) and function._cache.is_busy()


@functools.cache
def _stamp(folder: Path) -> tuple[int, int]:
    """Newest change of a folder's modules, in nanoseconds, and their size in bytes."""
    states = [path.stat() for path in folder.glob("*.py")]
    return max(s.st_mtime_ns for s in states), sum(s.st_size for s in states)


class _Compiling(event.Listener):  # type: ignore[misc]  # numba has no types
    """Tells of the first function that is not on disk yet."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = False

    def on_start(self, event: event.Event) -> None:
        if not self._told:
            self._told = True
            self._tell(COMPILING)

    def on_end(self, event: event.Event) -> None:
        """It was told at the start."""


@contextmanager
def told_of_compiling(tell: Callable[[str], None]) -> Iterator[None]:
    """``tell`` is called once as soon as anything in the block has to be compiled.

    What is on disk is loaded in a fraction of a second, and nothing is told.
    """
    with event.install_listener("numba:compile", _Compiling(tell)):
        yield
