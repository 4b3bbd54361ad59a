"""What a pack holds, and the check that it still does.

PACK/
  pairs.beton        the images, labels and kinds
  manifest.json      this: written last, so a folder without it is no pack
  pairs.csv          one line a pair: who, from which photographs, how the second was made
  contact_sheet.png  pairs by kind
  rejected.csv       photographs that were left out, and why
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distill.data.beton_index import BetonIndex, read_index
from distill.errors import UserError

FORMAT: Literal[1] = 1
BETON_NAME = "pairs.beton"
MANIFEST_NAME = "manifest.json"
_MANIFEST_BYTES_MAX = 1 << 30


class Manifest(BaseModel):
    """The description of a pack; `manifest.json` is its JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal[1] = FORMAT
    """Version of this description."""
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
    """Pairs of each of `kinds`."""
    pairs_per_identity: list[int]
    """Pairs of each of `identities`."""
    seed: int = 0
    """Seed of everything random in the pack."""
    options: dict[str, str | int | float | bool | dict[str, float]] = {}
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
    beton_bytes: int = Field(gt=0)
    """Size of `pairs.beton`."""
    beton_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of `pairs.beton`."""
    image_side: Literal[112] = 112
    """Height and width of the images, in pixels."""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """Quality of the JPEGs (4:4:4)."""
    versions: dict[str, str] = {}
    """Versions of pairdistill and of the libraries that made the pixels."""

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
        if set(self.pairs_per_kind) != set(self.kinds):
            raise ValueError("pairs_per_kind: other names than kinds")
        if sum(self.pairs_per_kind.values()) != self.pairs:
            raise ValueError("pairs_per_kind: does not add up to pairs")
        return self


@dataclass(frozen=True)
class Pack:
    """A folder with pairs, checked when it was opened.

    Attributes:
        path: the folder.
        manifest: what it holds.
    """

    path: Path
    manifest: Manifest

    @property
    def beton(self) -> Path:
        """The file with the images."""
        return self.path / BETON_NAME

    def index(self) -> BetonIndex:
        """Where every image is.

        Raises:
            UserError: the file is damaged, or does not hold what the manifest says.
        """
        manifest = self.manifest
        index = read_index(self.beton, classes=len(manifest.identities), kinds=len(manifest.kinds))
        if len(index) != manifest.pairs:
            raise UserError(
                f"{self.beton}: holds {len(index)} pairs, its manifest says {manifest.pairs}",
                fix="the files are of two packs: pack again",
            )
        return index


def read_pack(path: str | Path, *, verify_digest: bool = False) -> Pack:
    """Opens a pack and checks it against its manifest.

    Args:
        path: the folder.
        verify_digest: also read all of `pairs.beton` and compare its SHA-256.

    Raises:
        UserError: no pack, a damaged one, or files of different packs, with the file at fault.
    """
    folder = Path(path)
    pack = Pack(folder, _read_manifest(folder))
    size = _beton_size(pack.beton)
    if size != pack.manifest.beton_bytes:
        raise UserError(
            f"{pack.beton}: {size} bytes, its manifest says {pack.manifest.beton_bytes}",
            fix="the file is truncated or of another pack: pack again",
        )
    pack.index()
    if verify_digest and file_sha256(pack.beton) != pack.manifest.beton_sha256:
        raise UserError(
            f"{pack.beton}: its SHA-256 is not that of its manifest",
            fix="the file is damaged or of another pack: pack again",
        )
    return pack


def _beton_size(beton: Path) -> int:
    try:
        return beton.stat().st_size
    except OSError as error:
        raise UserError(f"{beton}: {error.strerror}", fix="pack again") from error


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST_NAME
    try:
        if file.stat().st_size > _MANIFEST_BYTES_MAX:
            raise UserError(f"{file}: larger than any manifest", fix="pack again")
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: no pack there (no {MANIFEST_NAME})",
            fix="give a folder made by `pairdistill pack`, or its train or evaluation part",
        ) from error
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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
