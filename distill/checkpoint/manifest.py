"""manifest.json: what a checkpoint is, and the digest of every byte of it."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from distill.errors import UserError
from distill.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 2
"""Version of the layout that is written."""
READABLE = (1, 2)
"""Versions that are read; any other is refused. In version 1 no tensor stands in ranges."""
MANIFEST = "manifest.json"
_SHARD_NAME = re.compile(r"shard-\d{5,}-of-\d{5,}\.safetensors", re.ASCII)


MISSING = "is missing"
"""How the reason of a `Damaged` ends where a file is not to be found."""


class Damaged(Exception):
    """A checkpoint is not what was written; the text names the file and what is wrong."""


class Part(NamedTuple):
    """Some rows of a tensor, which stand under a key of their own.

    Attributes:
        key: in the shard, and in the manifest's tensors.
        first: number of its first row in the whole.
        stop: one beyond its last.
    """

    key: str
    first: int
    stop: int


def parts_of(key: str, bounds: Sequence[int]) -> list[Part]:
    """The parts of tensor ``key`` that is cut before the rows ``bounds[1:-1]``."""
    return [
        Part(f"{key}[{first}:{stop}]", first, stop) for first, stop in itertools.pairwise(bounds)
    ]


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
    whatever the ZeRO stage), ``buffer/NAME``, and ``rng/RANK/DEVICE``. A parameter of a head by
    ranges of classes stands in parts, whose keys end in ``[FIRST:STOP]``, the rows in them;
    ``ranges`` has under the key of the whole the first row of each part, and the number of rows.
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
    ranges: dict[str, list[int]] = {}
    versions: dict[str, str]
    written: str
    digest: str = ""

    @property
    def classes(self) -> int:
        """Number of identities C."""
        return len(self.identities)

    def parts(self, key: str) -> list[Part]:
        """Where the rows of a tensor stand, in their order; none where it is not listed."""
        if key in self.ranges:
            return parts_of(key, self.ranges[key])
        entry = self.tensors.get(key)
        return [] if entry is None else [Part(key, 0, entry.shape[0] if entry.shape else 1)]

    def shapes(self, kind: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the whole tensors ``kind/NAME``, by name."""
        prefix = f"{kind}/"
        of_parts = {part.key for key in self.ranges for part in self.parts(key)}
        wholes = {key: entry.shape for key, entry in self.tensors.items() if key not in of_parts}
        for key, bounds in self.ranges.items():
            wholes[key] = [bounds[-1], *self.tensors[self.parts(key)[0].key].shape[1:]]
        return {
            key.removeprefix(prefix): tuple(shape)
            for key, shape in wholes.items()
            if key.startswith(prefix)
        }

    def sealed(self) -> Self:
        """The same, with the digest of all other fields."""
        return self.model_copy(update={"digest": _digest(self.model_dump())})

    def write(self, folder: Path) -> None:
        """Write to ``folder``, down to the disk; one that is there is replaced at once.

        Raises:
            UserError: it cannot be written; what was there is as it was.
        """
        text = json.dumps(self.model_dump(), indent=1)
        write_whole(folder / MANIFEST, text.encode(), alone=True)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check against its own digest.

        Raises:
            Damaged: missing, truncated or altered.
            UserError: whole, but of another format.
        """
        data = _parsed(folder / MANIFEST)
        if data["format"] not in READABLE:
            raise UserError(
                f"checkpoint {str(folder)!r} has format {data['format']}, this program reads"
                f" {READABLE}",
                fix=f"use the version of pairdistill that wrote it ({data.get('versions')})",
            )
        try:
            manifest = cls.model_validate(data)
        except ValidationError as error:
            raise Damaged(f"{MANIFEST} is not what this program writes: {error}") from error
        if not manifest._names_are_plain():
            raise Damaged(f"{MANIFEST} names files that are no shards")
        if not manifest._ranges_are_whole():
            raise Damaged(f"{MANIFEST} lacks a range of rows")
        return manifest

    def _names_are_plain(self) -> bool:
        """Whether all files are shards inside the folder, and all tensors in such files."""
        plain = all(_SHARD_NAME.fullmatch(name) for name in self.files)
        return plain and all(entry.file in self.files for entry in self.tensors.values())

    def _ranges_are_whole(self) -> bool:
        """Whether the parts of each tensor in ranges are listed, with as many rows as they say."""
        parts = [part for key in self.ranges for part in self.parts(key)]
        return all(
            part.key in self.tensors and self.tensors[part.key].shape[0] == part.stop - part.first
            for part in parts
        )


def _parsed(path: Path) -> dict[str, Any]:
    """The fields of a manifest that matches its own digest."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"{MANIFEST} {MISSING}") from error
    except (ValueError, RecursionError) as error:
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
