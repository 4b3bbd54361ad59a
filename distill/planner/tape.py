"""Modules without memory, and what their operators hold, read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from distill.engine_parts.autocast import AUTOCAST_DTYPES
from distill.losses.live_memory import LiveMemory

_Module = TypeVar("_Module", bound=nn.Module)


class Tape(LiveMemory):  # type: ignore[no-untyped-call]
    """Live memory, and the bytes that operators read and write; views move nothing.

    Attributes:
        moved_bytes: of arguments and results, each counted once for each operator.
        beside_bytes: alive at the moment, and made by no operator; for whoever uses it to set.
        peak_with_beside_bytes: the most that these and live memory have been together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved_bytes = 0
        self.beside_bytes = 0
        self.peak_with_beside_bytes = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operator, and count."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if _moves(func):
            tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
            self.moved_bytes += sum(t.numel() * t.element_size() for t in tensors)
        together = self.live_bytes + self.beside_bytes
        self.peak_with_beside_bytes = max(self.peak_with_beside_bytes, together)
        return result


def _moves(func: Any) -> bool:
    """Whether an operator reads or writes the memory of its tensors."""
    return func.namespace != "prim" and not func.is_view and "empty" not in func.name()


@contextmanager
def counting() -> Iterator[tuple[Tape, FlopCounterMode]]:
    """A block whose operators are counted."""
    with FlopCounterMode(display=False) as flops, Tape() as tape:
        yield tape, flops


def autocast(precision: str) -> torch.autocast:
    """A block in the arithmetic of ``train.precision``."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return torch.autocast("cpu", dtype, enabled=dtype is not None)


def on_meta(build: Callable[[], _Module]) -> _Module:
    """A module whose weights are shapes alone, and whose initialisation costs nothing."""
    with torch.device("meta"):
        return build()


def as_fake(module: _Module) -> _Module:
    """A module of the meta device as one of fake tensors, which say that they are on the CPU."""
    return module._apply(lambda t: torch.empty(t.shape, dtype=t.dtype))  # type: ignore[no-untyped-call, no-any-return]


def weights_of(module: nn.Module) -> tuple[tuple[int, bool], ...]:
    """Elements of each parameter, and whether it decays."""
    return tuple((p.numel(), p.ndim > 1) for p in module.parameters())
