"""Permissions that hold for root too; no test itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

VERSION_3 = 0x20080522
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2


@contextmanager
def without_privileges() -> Iterator[None]:
    """This thread is without the two capabilities by which root passes permissions; capset(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    # (effective, permitted, inheritable), twice
    header, words = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, words) == 0
    effective = words[0]
    words[0] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    assert libc.capset(header, words) == 0
    try:
        yield
    finally:
        words[0] = effective
        assert libc.capset(header, words) == 0
