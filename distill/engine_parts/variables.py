"""Environment variables that are set for a while only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """A block in which the variable ``name`` is ``value``; it is as before afterwards."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def nothing_compiled() -> AbstractContextManager[None]:
    """A block in which `torch.compile` leaves functions as they are.

    To find out whether an optimizer is Muon, DeepSpeed (0.19) imports Muon, and that imports
    torch's code generator for three functions which are never called: a second in every rank.
    torch looks at this variable in each call of `torch.compile`.
    """
    return variable("TORCHDYNAMO_DISABLE", "1")
