"""What a pack holds, and the check that it still does.

PACK/
  pairs-00000.beton  the images, labels and kinds: the first shard, and so on
  manifest.json      this: written last, so a folder without it is no pack
  pairs.csv          one line a pair: who, from which photographs, how the second was made
  contact_sheet.png  pairs by kind
  rejected.csv       photographs that were left out, and why
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distill.data.beton import LAYOUTS
from distill.data.beton_index import BetonIndex, check_index, open_index
from distill.data.digests import ends_sha256, file_sha256
from distill.data.pack_index import PackIndex
from distill.errors import UserError

FORMAT: Literal[2] = 2
MANIFEST_NAME = "manifest.json"
TRAIN_NAME, EVALUATION_NAME = "train", "evaluation"
CHECKED_PAIRS = 1 << 20
"""Packs up to this size are checked entry by entry when opened (a second); larger ones as they are
read, and by `pairdistill verify`."""
_MANIFEST_BYTES_MAX = 1 << 30
_SHA256 = r"^[0-9a-f]{64}$"


def shard_name(number: int) -> str:
    """Name of the file of shard ``number``, counted from 0."""
    return f"pairs-{number:05d}.beton"


class ShardFacts(BaseModel):
    """One `.beton` of a pack."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """File name, in the folder of the pack."""
    pairs: int = Field(gt=0)
    """Pairs in it."""
    bytes: int = Field(gt=0)
    """Its size."""
    sha256: str = Field(pattern=_SHA256)
    """SHA-256 of its content."""
    ends_sha256: str = Field(default="", pattern=_SHA256 + "|^$")
    """SHA-256 of its first and last `END_BYTES`, which hold labels, checksums and places of its
    pairs: compared whenever it is opened. Empty in packs of before."""

    @model_validator(mode="after")
    def _plain_name(self) -> ShardFacts:
        """Refuses a name that leads out of the folder."""
        if PurePath(self.name).name != self.name or self.name in ("", ".", ".."):
            raise ValueError("name: not a plain file name")
        return self


class Manifest(BaseModel):
    """The description of a pack; `manifest.json` is its JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal[2] = FORMAT
    """Version of this description; packs of version 1, a single file, still open."""
    purpose: Literal["train", "evaluation"]
    """`evaluation`: pair i shows photograph i // len(kinds), processed by kind i % len(kinds)."""
    pairs: int = Field(gt=0)
    """Pairs in the pack."""
    photographs: int = Field(gt=0)
    """First images that differ: photographs the pairs were made from."""
    identities: list[str] = Field(min_length=1)
    """Names of the people, sorted; the label of a pair is an index into this list."""
    kinds: list[str] = Field(min_length=1)
    """How second images were made; the kind of a pair is an index into this list."""
    pairs_per_kind: dict[str, int]
    """Pairs of each of `kinds`; empty where second images are made online."""
    pairs_per_identity: list[int]
    """Pairs of each of `identities`."""
    seed: int = 0
    """Seed of everything random in the pack."""
    options: dict[str, str | int | float | bool | dict[str, Any]] = {}
    """The settings of `pairdistill pack`."""
    source: str = ""
    """Where the photographs came from (no absolute path)."""
    samples_seen: int = 0
    """Photographs looked at, of both packs where some were held out."""
    samples_rejected: int = 0
    """Photographs that were left out; `rejected.csv` says why."""
    source_digest: str = ""
    """SHA-256 over name, person and content of every photograph looked at."""
    request_digest: str = ""
    """SHA-256 over the photographs, settings and version: equal requests give equal packs."""
    split: dict[str, int] = {}
    """What was done so that nothing nearly the same is in both packs, where some were held out."""
    licence: str = ""
    """The licence of the photographs, as given when packing."""
    purpose_note: str = ""
    """What the photographs may be used for, as given when packing."""
    forgotten: list[int] = []
    """Labels of people who were removed: no pair has one of them, and no other label moved."""
    shards: list[ShardFacts] = Field(min_length=1)
    """The files, in the order of their pairs."""
    second: Literal["packed", "online"] = "packed"
    """Whether second images are in the pack, or made while training."""
    kind_chances: dict[str, float] = {}
    """Chance of each processing where second images are made online."""
    second_options: dict[str, Any] = {}
    """Settings of the processings where second images are made online."""
    image_side: int = Field(default=112, ge=32, le=512, multiple_of=8)
    """Height and width of the images, in pixels."""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """Quality of the JPEGs (4:4:4)."""
    versions: dict[str, str] = {}
    """Versions of pairdistill and of the libraries that made the pixels."""

    @model_validator(mode="before")
    @classmethod
    def _of_one_file(cls, data: Any) -> Any:
        """Version 1 had one file, `pairs.beton`."""
        if not isinstance(data, dict) or data.get("format") != 1 or "shards" in data:
            return data
        facts = {"name": "pairs.beton", "pairs": data.get("pairs")}
        facts |= {"bytes": data.pop("beton_bytes", 0), "sha256": data.pop("beton_sha256", "")}
        return {**data, "format": FORMAT, "shards": [facts]}

    @model_validator(mode="after")
    def _counts_agree(self) -> Manifest:
        """Refuses a description that contradicts itself."""
        if len(set(self.identities)) != len(self.identities):
            raise ValueError("identities: a name appears twice")
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds: a name appears twice")
        if len(self.pairs_per_identity) != len(self.identities):
            raise ValueError("pairs_per_identity: not as long as identities")
        if sum(self.pairs_per_identity) != self.pairs:
            raise ValueError("pairs_per_identity: does not add up to pairs")
        packed = self.second == "packed"
        if set(self.pairs_per_kind) != (set(self.kinds) if packed else set()):
            raise ValueError("pairs_per_kind: other names than kinds")
        if packed and sum(self.pairs_per_kind.values()) != self.pairs:
            raise ValueError("pairs_per_kind: does not add up to pairs")
        if sum(shard.pairs for shard in self.shards) != self.pairs:
            raise ValueError("shards: do not add up to pairs")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of the shards, and what second images are made by online."""
        content = "".join(s.sha256 for s in self.shards)
        if self.second == "online":
            content += json.dumps([self.kind_chances, self.second_options], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class Pack:
    """A folder with pairs, checked when it was opened.

    Attributes:
        path: the folder.
        manifest: what it holds.
    """

    path: Path
    manifest: Manifest

    @cached_property
    def index(self) -> PackIndex:
        """Where every image is.

        Raises:
            UserError: a shard is missing, damaged, or does not hold what the manifest says.
        """
        manifest = self.manifest
        shards = tuple(self._opened(facts) for facts in manifest.shards)
        return PackIndex(shards, len(manifest.identities), len(manifest.kinds))

    def _opened(self, facts: ShardFacts) -> BetonIndex:
        """One shard, its header compared with the manifest."""
        path = self.path / facts.name
        if (size := _file_size(path)) != facts.bytes:
            raise UserError(
                f"{path}: {size} bytes, its manifest says {facts.bytes}",
                fix="the file is truncated or of another pack: restore it, or pack again",
            )
        if facts.ends_sha256 and ends_sha256(path) != facts.ends_sha256:
            raise UserError(
                f"{path}: other pairs than its manifest knows",
                fix="the file is damaged, of another pack, or of another place in this one:"
                " restore it, or pack again",
            )
        layout = LAYOUTS["singles" if self.manifest.second == "online" else "pairs"]
        index = open_index(path, layout=layout, side=self.manifest.image_side)
        if len(index) != facts.pairs:
            raise UserError(
                f"{path}: holds {len(index)} pairs, its manifest says {facts.pairs}",
                fix="the files are of two packs: restore it, or pack again",
            )
        return index


def read_pack(path: str | Path, *, verify_digest: bool = False) -> Pack:
    """Opens a pack and checks it against its manifest.

    Args:
        path: the folder.
        verify_digest: also read every shard and compare its SHA-256.

    Raises:
        UserError: no pack, a damaged one, or files of different packs, with the file at fault.
    """
    folder = Path(path)
    pack = Pack(folder, _read_manifest(folder))
    index = pack.index
    if len(index) <= CHECKED_PAIRS:
        for shard in index.shards:
            check_index(shard, index.classes, index.kinds)
    if verify_digest:
        for facts in pack.manifest.shards:
            check_digest(folder / facts.name, facts.sha256)
    return pack


def check_digest(path: Path, sha256: str) -> None:
    """Reads all of a shard.

    Raises:
        UserError: it is not what was packed.
    """
    if file_sha256(path) != sha256:
        raise UserError(
            f"{path}: its SHA-256 is not that of its manifest",
            fix="the file is damaged or of another pack: restore it, or pack again",
        )


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}", fix="restore the file from a copy, or pack again"
        ) from error


def _where_one_is(folder: Path) -> str:
    """What to give instead of a folder without a manifest."""
    parts = [part for part in (TRAIN_NAME, EVALUATION_NAME) if (folder / part).is_dir()]
    if parts:
        return f"give one of its parts: {' or '.join(str(folder / part) for part in parts)}"
    return "give a folder made by `pairdistill pack`, or its train or evaluation part"


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST_NAME
    try:
        if file.stat().st_size > _MANIFEST_BYTES_MAX:
            raise UserError(f"{file}: larger than any manifest", fix="pack again")
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: no pack there (no {MANIFEST_NAME})", fix=_where_one_is(folder)
        ) from error
    except NotADirectoryError as error:
        raise UserError(f"{folder}: a file", fix="give the folder of a pack") from error
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}", fix="make it readable") from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise UserError(
            f"{file}: {where} {fault['msg']}".replace(":  ", ": "), fix="pack again"
        ) from error
