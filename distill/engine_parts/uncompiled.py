"""`torch.compile` switched off for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH = "TORCHDYNAMO_DISABLE"
"""torch looks at this variable in each call of `torch.compile`."""


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """A block in which `torch.compile` leaves functions as they are.

    To find out whether an optimizer is Muon, DeepSpeed (0.19) imports Muon, and that imports
    torch's code generator for three functions which are never called: a second in every rank.
    """
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        del os.environ[_SWITCH]
        if before is not None:
            os.environ[_SWITCH] = before
