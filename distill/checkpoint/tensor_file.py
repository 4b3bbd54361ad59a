"""Safetensors files written as a stream, so that no second copy of a tensor is in memory.

The format is that of https://github.com/huggingface/safetensors: eight bytes with the length of
a JSON header, the header, then the tensors without gaps. Its library writes from whole tensors
only; it is used for all reading.
"""

from __future__ import annotations

import errno
import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LONGEST_HEADER = 100_000_000
"""Bytes; the library reads no longer one."""
_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""Types as safetensors calls them, in its order: files begin with the last of these."""
_PLACES = list(_NAMES)


class HeaderTooLong(OSError):
    """A header that the library would not read; nothing has been written."""


class TensorSpec(NamedTuple):
    """A tensor to be written."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def dtype_name(self) -> str:
        """The type as safetensors calls it."""
        return _NAMES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def specs_of(tensors: Mapping[str, torch.Tensor]) -> list[TensorSpec]:
    """What `TensorWriter` needs to know of ``tensors``."""
    return [TensorSpec(key, t.dtype, tuple(t.shape)) for key, t in tensors.items()]


def library_order(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The order of the library's own files: wide types first, so that all are aligned; by name."""
    return sorted(specs, key=lambda spec: (-_PLACES.index(spec.dtype), spec.key))


class TensorWriter:
    """Writes tensors in the order of ``specs``, bytes as they come; then `close`.

    As a context, it closes the file in any case.

    Raises:
        HeaderTooLong: at the beginning.
        OSError: from every method: no space, quota, no permission, a broken disk.
    """

    def __init__(
        self, path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str]
    ) -> None:
        header = _header(specs, metadata)
        self._left = len(header) + sum(spec.nbytes for spec in specs)
        self._file = path.open("xb", buffering=0)
        self.write(header)

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        view = memoryview(data).cast("B")
        while view:
            count = self._file.write(view)
            self._written(view[:count])
            view = view[count:]

    def add(self, tensor: torch.Tensor) -> None:
        """The next elements, of a tensor on the CPU."""
        array: Any = tensor.contiguous().view(-1).numpy()
        self.write(memoryview(array))

    def _written(self, view: memoryview) -> None:
        """Called with what has got into the file."""
        self._left -= len(view)

    def close(self) -> None:
        """All was written: bring it to the disk."""
        assert self._left == 0, "the tensors do not match their specs"
        with self._file:
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        self._file.close()


def _header(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON header."""
    text = _header_text(specs, metadata)
    if len(text) > LONGEST_HEADER:
        raise HeaderTooLong(
            errno.EMSGSIZE, f"a header of {len(text)} bytes, and safetensors takes {LONGEST_HEADER}"
        )
    return len(text).to_bytes(8, "little") + text


def _header_text(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """JSON, padded so that the tensors start at a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for spec in specs:
        end = offset + spec.nbytes
        entries[spec.key] = {
            "dtype": spec.dtype_name,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
