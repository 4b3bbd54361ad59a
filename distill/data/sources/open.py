"""From what a user names to a source: chosen by what the path holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from distill.data.sources import Source
from distill.data.sources.folder import IMAGE_ENDINGS, FolderSource
from distill.data.sources.openpeople import OpenPeopleSource
from distill.data.sources.parquet import PARQUET_ENDING, ParquetSource
from distill.data.sources.paths import entries_of, is_folder, opened
from distill.data.sources.recordio import WORD
from distill.data.sources.records import RecordSource
from distill.data.sources.shards import TAR_ENDING, ShardSource
from distill.data.sources.table import TABLE_ENDINGS, TableSource
from distill.errors import UserError

RECORD_ENDING = ".rec"
FORMATS = ("folder", "rec", "parquet", "tar", "csv")
_LOOKED_INTO = 32
"""Subfolders in which parquet files are looked for."""
COMPRESSED = "compressed"
"""What `format_of_file` calls a file that is to be unpacked first."""
LOOKED_FOR = (
    "folders of people's images, train.rec, *.parquet, *.tar, or a file .rec, .parquet, .tar,"
    " .csv, .tsv"
)


@dataclass(frozen=True)
class SourceOptions:
    """What may be said of a source, where looking at it does not tell.

    Attributes:
        format: one of `FORMATS`; empty to choose by what the path holds.
        image_column: of a table or parquet files.
        identity_column: likewise, with the people.
        root: folder of photographs that are given as paths; that of the file if None.
    """

    format: str = ""
    image_column: str | None = None
    identity_column: str | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        """Checks the format.

        Raises:
            UserError: it is none that is known.
        """
        if self.format and self.format not in FORMATS:
            raise UserError(f"--format {self.format}", fix=f"choose from {', '.join(FORMATS)}")


def open_source(name: str, options: SourceOptions | None = None) -> Source:
    """The photographs that ``name`` stands for: a path, a pattern of files, or ``openpeople``.

    Raises:
        UserError: nothing there, nothing that is known in it, or several things.
    """
    options = options or SourceOptions()
    if name == "openpeople" and not Path(name).is_dir():
        return OpenPeopleSource()
    return _OPENERS[options.format or format_of(name)](name, options)


def format_of(name: str) -> str:
    """Which of `FORMATS` is at a path.

    Raises:
        UserError: none, or several.
    """
    path = Path(name)
    if path.is_dir():
        return _format_of_folder(path)
    if not path.exists() and "{" not in name:
        raise UserError(f"{name}: no such file or folder", fix=f"give {LOOKED_FOR}")
    found = format_of_file(path)
    if found == COMPRESSED:
        raise UserError(
            f"{path}: compressed",
            fix="unpack it (images do not get smaller), and give what was in it",
        )
    if not found:
        raise UserError(
            f"{name}: not known by its ending nor by its first bytes",
            fix=f"give {LOOKED_FOR}; or say what it is by --format",
        )
    return found


def _format_of_folder(path: Path) -> str:
    """What a folder holds: files of one known ending, or else folders of people."""
    there = formats_in(path)
    if len(there) > 1:
        (_, one), (_, other) = list(there.items())[:2]
        raise UserError(
            f"{path}: holds {one.name} and {other.name}, which are different data sets",
            fix="name one of these files, or choose by --format",
        )
    return next(iter(there), "folder")


def formats_in(folder: Path) -> dict[str, Path]:
    """Which of `FORMATS` have files in a folder, each with one of them.

    Parquet files may also lie in its subfolders. Only the first few by name are looked into, and
    none further than its first image: a folder of millions of photographs is not walked for that.
    """
    found = {
        "rec": list(folder.glob(f"*{RECORD_ENDING}"))[:1],
        "parquet": [*folder.glob(f"*{PARQUET_ENDING}")][:1] or _parquet_below(folder),
        "tar": list(folder.glob(f"*{TAR_ENDING}"))[:1],
    }
    return {name: files[0] for name, files in found.items() if files}


def _parquet_below(folder: Path) -> list[Path]:
    """A parquet file in one of the first few subfolders; none where there is none."""
    for subfolder in islice(filter(is_folder, entries_of(folder)), _LOOKED_INTO):
        with suppress(PermissionError), os.scandir(subfolder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if path.suffix == PARQUET_ENDING:
                    return [path]
                if path.suffix.lower() in IMAGE_ENDINGS:
                    break
    return []


def format_of_file(path: Path) -> str:
    """One of `FORMATS` by a file's ending or first bytes; `COMPRESSED`; empty for anything else."""
    endings = {RECORD_ENDING: "rec", PARQUET_ENDING: "parquet", TAR_ENDING: "tar"}
    endings |= dict.fromkeys(TABLE_ENDINGS, "csv")
    return endings.get(path.suffix.lower()) or _format_of_content(path)


def _format_of_content(path: Path) -> str:
    """What the first bytes of a file say."""
    if not path.is_file():
        return ""
    with opened(path) as (file, _):
        head = file.read(512)
    if head[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5") or head[:4] == b"PK\3\4":
        return COMPRESSED
    marks = {
        "rec": head[:4] == WORD,
        "parquet": head[:4] == b"PAR1",
        "tar": head[257:262] == b"ustar",
    }
    return next((name for name, is_it in marks.items() if is_it), "")


def _records(name: str, _: SourceOptions) -> Source:
    """The one record file of a folder, or the file itself."""
    path = Path(name)
    if not path.is_dir():
        return RecordSource.at(path)
    files = sorted(path.glob(f"*{RECORD_ENDING}"))
    usual = [file for file in files if file.stem == "train"]
    if len(usual or files) != 1:
        raise UserError(
            f"{path}: {len(files)} files {RECORD_ENDING}, none of them train.rec",
            fix="name the one that is meant",
        )
    return RecordSource.at((usual or files)[0])


def _parquet(name: str, options: SourceOptions) -> Source:
    columns = options.image_column, options.identity_column
    return ParquetSource.at(name, options.root, *columns)


def _table(name: str, options: SourceOptions) -> Source:
    columns = options.image_column, options.identity_column
    return TableSource.at(Path(name), options.root, *columns)


_OPENERS: dict[str, Callable[[str, SourceOptions], Source]] = {
    "folder": lambda name, _: FolderSource(Path(name)),
    "rec": _records,
    "parquet": _parquet,
    "tar": lambda name, _: ShardSource.at(name),
    "csv": _table,
}
