"""The end of a program: all that it owes is done, and nothing is taken to pieces.

Before Python ends it destroys every module. Those of torch, DeepSpeed and numba take more than a
second of processor time, in each rank; the operating system frees the same at once.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Callable


def run_and_leave(program: Callable[[], object]) -> None:
    """Call ``program`` as all that this process does; the process then ends at once.

    Threads are waited for and exit handlers run as ever, and standard output and error are written
    out. With another exception than `SystemExit`, or a message as its status, Python ends as ever.

    Call it before anything heavy is imported: handlers that were registered earlier do not run.
    """
    status: list[int] = []
    atexit.register(_leave, status)
    try:
        program()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            status.append(end.code or 0)
        raise
    status.append(0)


def _leave(status: list[int]) -> None:
    if not status:
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # started with `>&-`
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            return  # Python tries once more, and reports it
    ctypes.CDLL(None).fflush(None)  # what libraries print by themselves
    os._exit(status[0] & 0xFF)
