"""What a file or folder is that was given for photographs and holds none, and what takes it."""

from __future__ import annotations

import os
from pathlib import Path

from distill.data.manifest import MANIFEST_NAME
from distill.data.protocols.found import sets_in
from distill.data.sources.open import COMPRESSED, format_of_file, formats_in
from distill.data.verification_set import ENDING as SET_ENDING

PACKED = "pairs*.beton"
"""Files of a pack."""
_PACKABLE = "`pairdistill pack` and `inspect` read it; here give photographs, or a folder of them"
_UNPACK = "unpack it, and give the folder"
_WORDS = {
    "rec": ("a record file", _PACKABLE),
    "parquet": ("a parquet file", _PACKABLE),
    "csv": ("a table", _PACKABLE),
    "tar": ("a tar archive", f"{_UNPACK} (`pairdistill pack` and `inspect` read it as it is)"),
    COMPRESSED: ("a compressed file", _UNPACK),
    "pack": ("a pack", "its pairs are for training; give the photographs that it was made of"),
    "set": ("a verification set", "`pairdistill evaluate` and `inspect` read it"),
}


def file_known_as(path: Path) -> str:
    """What a file that is no image is, and what to do with it; empty where it is nothing known."""
    if not path.is_file() or not os.access(path, os.R_OK):
        return ""
    what, remedy = _WORDS.get(_kind_of_file(path), ("", ""))
    return f"{what}, not a photograph; {remedy}" if what else ""


def _kind_of_file(path: Path) -> str:
    if path.match(PACKED):
        return "pack"
    return "set" if path.suffix == SET_ENDING else format_of_file(path)


def is_pack(folder: Path) -> bool:
    """Whether a folder is a pack; the images in it are sheets of many faces."""
    return (folder / MANIFEST_NAME).is_file() and any(folder.glob(PACKED))


def folder_known_as(folder: Path) -> tuple[str, str]:
    """What a folder without photographs holds, and what to do with it; empty: nothing known."""
    if is_pack(folder):
        return _WORDS["pack"]
    kind = next(iter(formats_in(folder)), "set" if sets_in(folder) else "")
    return _WORDS.get(kind, ("", ""))
