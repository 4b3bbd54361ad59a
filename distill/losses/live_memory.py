"""Bytes of tensors that are alive, counted as they are made: exact, the same on every machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
        self._meet(result, counted=True)
        return result

    def _meet(self, tree: Any, *, counted: bool) -> None:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._count(leaf.untyped_storage(), counted)

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
