"""The safetensors file of one rank: who it belongs to, its digest, and whether it is as written."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from distill.checkpoint.manifest import MISSING, Damaged, FileEntry, Manifest
from distill.checkpoint.tensor_file import TensorWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.checkpoint.tensor_file import TensorSpec

_CHUNK = 1 << 22


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


class ShardWriter(TensorWriter):
    """A `TensorWriter` that knows what it has written."""

    def __init__(self, path: Path, specs: Sequence[TensorSpec], label: ShardLabel) -> None:
        self._rank, self._bytes, self._hash = label.rank, 0, hashlib.sha256()
        super().__init__(path, specs, label.as_metadata())

    def _written(self, view: memoryview) -> None:
        super()._written(view)
        self._bytes += len(view)
        self._hash.update(view)

    @property
    def entry(self) -> FileEntry:
        """Size and digest of what was handed to `write`."""
        return FileEntry(bytes=self._bytes, sha256=self._hash.hexdigest(), rank=self._rank)


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
        raise Damaged(f"{path.name} {MISSING}") from error
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
        raise Damaged(f"{path.name} {MISSING}") from error
    except SafetensorError as error:
        raise Damaged(f"{path.name} is no whole safetensors file ({error})") from error
    for key, value in expected.items():
        if found.get(key) != value:
            raise Damaged(f"{path.name} is of {key} {found.get(key)}, not {value}")
