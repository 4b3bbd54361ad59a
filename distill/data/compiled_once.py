"""One process compiles a function; others that need it wait, and load what it has made.

Ranks and packing workers of a machine need the same functions at the same time, and compiling all
of them takes a core more than a minute.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from distill.locks import flocked, is_still

T = TypeVar("T")


class CompiledOnce:
    """Numba's cache of one function, which one process at a time fills.

    Numba asks it for machine code (`load_overload`), and only where there is none compiles it and
    hands it over (`save_overload`); between the two a lock is held. Both happen under numba's own
    lock for the threads of a process. A function holds its lock while those it calls are compiled;
    they never call back, so that no two processes wait for each other. A process that is killed
    leaves its lock to the next one. Where locks cannot be had, every process compiles.

    Args:
        cache: numba's own, ``function._cache`` (0.66: `numba.core.caching.FunctionCache`).
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        name = cache._impl.filename_base
        self._path = Path(cache.cache_path, f"{name}.lock")
        self._lock: int | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Machine code for the argument types ``sig``, or None: then it is to be compiled here."""
        found = self._cache.load_overload(sig, target_context)
        if found is None and self._lock is None:
            self._lock = self._locked()
            found = self._cache.load_overload(sig, target_context)
            if found is not None:  # made while this process waited
                self._release()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, for all; where there is no room, others compile it again."""
        try:
            with contextlib.suppress(OSError):
                self._cache.save_overload(sig, data)
        finally:
            self._release()

    def is_busy(self) -> bool:
        """Whether another process is compiling the function right now."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not flocked(file)
        except OSError:  # a file system without locks
            return False
        finally:
            os.close(file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def _locked(self) -> int | None:
        """The lock, waited for; None where there is no place for it."""
        with contextlib.suppress(OSError):
            self._cache._impl.locator.ensure_cache_path()
            while True:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if is_still(self._path, file):
                        return file
                except BaseException:
                    os.close(file)
                    raise
                os.close(file)  # who had it has taken it away
        return None

    def _release(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # for forks too, who have the descriptor
            os.close(self._lock)
            self._lock = None


def idle_first(items: Iterable[T], is_busy: Callable[[T], bool]) -> Iterator[T]:
    """All ``items``, at each moment one that is not busy where there is such a one.

    So that processes that need the same things divide them, in place of waiting in one line.
    """
    left = list(items)
    while left:
        item = next((one for one in left if not is_busy(one)), left[0])
        left.remove(item)
        yield item
