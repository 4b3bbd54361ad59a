"""FFCV's import, without the two things it does on the side.

`ffcv.fields.rgb_image` keeps two numbers in a dictionary of numba's, and so compiles dictionaries:
3 s of CPU time in every process. With numba's documented switch for plain Python on
(`numba.config.DISABLE_JIT`, see "Environment variables" in its manual) it is a plain dictionary,
which FFCV reads in the same way. And `ffcv.pipeline.compiler` sets torch to one thread.
"""

from __future__ import annotations

import torch
from numba import config
from numba.typed import Dict  # noqa: F401  (its own functions are to be compiled ones)


def import_ffcv() -> None:
    """Import `ffcv`; whatever was compiled or is to be compiled, and torch's threads, stay."""
    threads, plain = torch.get_num_threads(), config.DISABLE_JIT
    config.DISABLE_JIT = True
    try:
        import ffcv  # noqa: F401
    finally:
        config.DISABLE_JIT = plain
        torch.set_num_threads(threads)
