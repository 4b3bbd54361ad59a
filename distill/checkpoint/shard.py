"""One safetensors file a rank: written as a stream, so that no second copy of it is in memory.

The format is that of https://github.com/huggingface/safetensors: eight bytes with the length of
a JSON header, the header, then the tensors without gaps. Its library writes from whole tensors
only; it is used for all reading.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from distill.checkpoint.manifest import Damaged, FileEntry, Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_CHUNK = 1 << 22
_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


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
    """What `ShardWriter` needs to know of ``tensors``."""
    return [TensorSpec(key, t.dtype, tuple(t.shape)) for key, t in tensors.items()]


@dataclass(frozen=True)
class ShardLabel:
    """Where a shard belongs; stands in its own header."""

    run_id: str
    step: int
    rank: int
    world_size: int

    @property
    def file_name(self) -> str:
        """e.g. ``shard-00000-of-00002.safetensors``."""
        return f"shard-{self.rank:05d}-of-{self.world_size:05d}.safetensors"

    def as_metadata(self) -> dict[str, str]:
        """As safetensors metadata, which is text."""
        return {key: str(value) for key, value in vars(self).items()}


class ShardWriter:
    """Writes tensors in the order of ``specs``, bytes as they come; then `close`.

    Raises:
        OSError: from every method: no space, quota, no permission, a broken disk.
    """

    def __init__(self, path: Path, specs: Sequence[TensorSpec], label: ShardLabel) -> None:
        header = _header(specs, label)
        self._expected = len(header) + sum(spec.nbytes for spec in specs)
        self._rank = label.rank
        self._hash = hashlib.sha256()
        self._written = 0
        self._file = path.open("xb", buffering=0)
        self.write(header)

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        view = memoryview(data).cast("B")
        while view:
            count = self._file.write(view)
            self._hash.update(view[:count])
            self._written += count
            view = view[count:]

    def close(self) -> None:
        """All was written: bring it to the disk."""
        assert self._written == self._expected, "the tensors do not match their specs"
        with self._file:
            os.fsync(self._file.fileno())

    @property
    def entry(self) -> FileEntry:
        """Size and digest of what was handed to `write`."""
        return FileEntry(bytes=self._written, sha256=self._hash.hexdigest(), rank=self._rank)


def _header(specs: Sequence[TensorSpec], label: ShardLabel) -> bytes:
    """Length and JSON header, padded so that the tensors start at a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": label.as_metadata()}
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
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def verify_file(path: Path, entry: FileEntry) -> None:
    """Compare size and digest of a file, read back from the disk where the system lets us.

    Raises:
        Damaged: missing, truncated or altered.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.bytes:
                raise Damaged(f"{path.name} has {size} bytes instead of {entry.bytes}")
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    if digest.hexdigest() != entry.sha256:
        raise Damaged(f"{path.name} does not match its digest")


def verify_label(path: Path, manifest: Manifest, rank: int) -> None:
    """Check that a shard says of itself that it belongs to ``manifest``.

    Raises:
        Damaged: of another run, step or rank, or unreadable.
    """
    expected = ShardLabel(manifest.run_id, manifest.step, rank, manifest.world_size).as_metadata()
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    except SafetensorError as error:
        raise Damaged(f"{path.name} is no whole safetensors file ({error})") from error
    for key, value in expected.items():
        if found.get(key) != value:
            raise Damaged(f"{path.name} is of {key} {found.get(key)}, not {value}")
