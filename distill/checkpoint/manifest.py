"""manifest.json: what a checkpoint is, and the digest of every byte of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from distill.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
"""Version of the layout; a reader refuses any other."""
MANIFEST = "manifest.json"
_SHARD_NAME = re.compile(r"shard-\d{5,}-of-\d{5,}\.safetensors", re.ASCII)


class Damaged(Exception):
    """A checkpoint is not what was written; the text names the file and what is wrong."""


class FileEntry(BaseModel):
    """One shard: its size, its digest and the rank that wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int
    sha256: str
    rank: int


class TensorEntry(BaseModel):
    """One tensor: its file, type (as safetensors calls it) and shape."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: str
    dtype: str
    shape: list[int]


class Manifest(BaseModel):
    """Everything of a checkpoint but the tensors.

    Keys of ``tensors``: ``weight/NAME`` and ``MOMENT/NAME`` for each parameter (whole, float32,
    whatever the ZeRO stage), ``buffer/NAME``, and ``rng/RANK/DEVICE``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int = FORMAT
    run_id: str
    step: int
    world_size: int
    zero_stage: int
    moments: list[str]
    counters: dict[str, float]
    train_state: dict[str, Any]
    config: dict[str, Any]
    identities: list[str]
    data_digest: str
    files: dict[str, FileEntry]
    tensors: dict[str, TensorEntry]
    versions: dict[str, str]
    written: str
    digest: str = ""

    @property
    def classes(self) -> int:
        """Number of identities C."""
        return len(self.identities)

    def sealed(self) -> Self:
        """The same, with the digest of all other fields."""
        return self.model_copy(update={"digest": _digest(self.model_dump())})

    def write(self, folder: Path) -> None:
        """Write to ``folder``, down to the disk."""
        with (folder / MANIFEST).open("wb") as file:
            file.write(json.dumps(self.model_dump(), indent=1).encode())
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check against its own digest.

        Raises:
            Damaged: missing, truncated or altered.
            UserError: whole, but of another format.
        """
        data = _parsed(folder / MANIFEST)
        if data["format"] != FORMAT:
            raise UserError(
                f"checkpoint {str(folder)!r} has format {data['format']}, this program reads"
                f" {FORMAT}",
                fix=f"use the version of pairdistill that wrote it ({data.get('versions')})",
            )
        try:
            manifest = cls.model_validate(data)
        except ValidationError as error:
            raise Damaged(f"{MANIFEST} is not what this program writes: {error}") from error
        if not manifest._names_are_plain():
            raise Damaged(f"{MANIFEST} names files that are no shards")
        return manifest

    def _names_are_plain(self) -> bool:
        """Whether all files are shards inside the folder, and all tensors in such files."""
        plain = all(_SHARD_NAME.fullmatch(name) for name in self.files)
        return plain and all(entry.file in self.files for entry in self.tensors.values())


def _parsed(path: Path) -> dict[str, Any]:
    """The fields of a manifest that matches its own digest."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"{MANIFEST} is missing") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} is truncated or altered") from error
    if not isinstance(data, dict) or "format" not in data:
        raise Damaged(f"{MANIFEST} is no manifest")
    if _digest(data) != data.get("digest"):
        raise Damaged(f"{MANIFEST} does not match its own digest")
    return data


def _digest(data: dict[str, Any]) -> str:
    others = {key: value for key, value in data.items() if key != "digest"}
    text = json.dumps(others, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
