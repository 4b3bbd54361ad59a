"""Bytes of tensors that are alive, counted as they are made: exact, the same on every machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_PLAIN = frozenset((bool, float, int, str, torch.device, torch.dtype, type(None)))
"""What most arguments are that are no tensors, and hold none."""


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, within a ``with`` block, the tensors that operators make.

    Tensors from before the block do not count, nor does what an operator uses inside itself, nor
    tensors of the meta device, which have a size and no memory.

    Args:
        except_sizes: storages of exactly so many bytes do not count, for a result that every way
            of computing must make.

    Attributes:
        live_bytes: bytes made in the block and alive now.
        peak_bytes: the most that this has been.
    """

    def __init__(self, except_sizes: Collection[int] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._except_sizes = except_sizes
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operator, and count the storage of what it returns."""
        kwargs = kwargs or {}
        self._meet((args, kwargs), counted=False)
        result = func(*args, **kwargs)
        self._meet((result,), counted=True)
        return result

    def _meet(self, values: tuple[Any, ...], *, counted: bool) -> None:
        tensors: list[torch.Tensor] = []
        _add_tensors(values, tensors)
        for tensor in tensors:
            if tensor.device.type != "meta":
                self._count(tensor.untyped_storage(), counted)

    def _count(self, storage: torch.UntypedStorage, counted: bool) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0
        size = 0 if size in self._except_sizes else size
        self._known.add(key)
        weakref.finalize(storage, self._forget, key, size)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live_bytes -= size


def _add_tensors(values: Iterable[Any], found: list[torch.Tensor]) -> None:
    """Add those among what an operator takes or returns; torch's `tree_leaves` takes far longer."""
    for value in values:
        if type(value) in _PLAIN:
            continue
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            _add_tensors(value, found)
        elif isinstance(value, dict):
            _add_tensors(value.values(), found)
