"""DeepSpeed without a compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.processes.variables import variable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def nothing_compiled() -> AbstractContextManager[None]:
    """A block in which `torch.compile` leaves functions as they are.

    To find out whether an optimizer is Muon, DeepSpeed (0.19) imports Muon, and that imports
    torch's code generator for three functions which are never called: a second in every rank.
    torch looks at this variable in each call of `torch.compile`.
    """
    return variable("TORCHDYNAMO_DISABLE", "1")
