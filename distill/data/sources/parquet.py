"""Parquet files: one row a photograph, its bytes (or its path) and its person, perhaps landmarks.

The image is a column of bytes, of paths below a folder, or Hugging Face's ``{bytes, path}``. People
are text or whole numbers; numbers that the file's Hugging Face metadata names become these names.
Rows are read in small batches, row group by row group.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.images import Unusable
from distill.data.sources import Landmarks, Sample, damaged, held
from distill.data.sources.folder import MAX_FILE_BYTES, read_file
from distill.data.sources.parquet_file import (
    arrow_library,
    bomb,
    class_names,
    fault_of_type,
    opened_parquet,
    row_count,
    said,
)
from distill.data.sources.paths import Below, files_of, name_of, with_origins
from distill.data.sources.values import (
    IDENTITY_COLUMNS,
    LANDMARK_COLUMNS,
    column,
    identity_of,
    landmarks_of,
)
from distill.errors import UserError

PARQUET_ENDING = ".parquet"
IMAGE_COLUMNS = ("image", "img", "bytes", "image_bytes", "jpg", "jpeg", "png", "path", "file")
"""What the column with the image may be called, the first that is there."""
BATCH_ROWS = 16
"""Rows read at a time: few, so that large images do not add up."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read.

    Attributes:
        image: bytes, paths, or ``{bytes, path}``.
        identity: the person.
        landmarks: ten numbers or five pairs; None if there are none.
    """

    image: str
    identity: str
    landmarks: str | None

    def names(self) -> list[str]:
        """All of them."""
        return [name for name in (self.image, self.identity, self.landmarks) if name]


@dataclass(frozen=True)
class ParquetSource:
    """The rows of parquet files, in the order of the files.

    Attributes:
        paths: the files.
        root: folder that paths of images are relative to; that of each file if None.
        columns: what is read.
    """

    paths: tuple[Path, ...]
    root: Path | None
    columns: Columns

    @classmethod
    def at(
        cls,
        path: str,
        root: Path | None = None,
        image: str | None = None,
        identity: str | None = None,
    ) -> ParquetSource:
        """One file, all of a folder, or those that a pattern with braces stands for.

        Args:
            path: the file, folder or pattern.
            root: of photographs that are given as paths.
            image: name of the column with images, if it is none of `IMAGE_COLUMNS`.
            identity: name of the column with people.

        Raises:
            UserError: pyarrow is missing, no such file, the first one is damaged or lacks a column.
        """
        paths = files_of(path, PARQUET_ENDING)
        first, arrow = paths[0], arrow_library()
        try:
            schema = opened_parquet(first).schema_arrow
        except (arrow.ArrowException, OSError) as fault:
            raise UserError(f"{first}: {said(fault)}", fix="give a whole parquet file") from None
        names = list(schema.names)
        chosen = Columns(
            column(first, names, IMAGE_COLUMNS, image, "--image-column"),
            column(first, names, IDENTITY_COLUMNS, identity, "--identity-column"),
            next((name for name in LANDMARK_COLUMNS if name in names), None),
        )
        if kind := fault_of_type(schema.field(chosen.image).type):
            raise UserError(
                f"{first}: column {chosen.image!r} holds {kind}",
                fix="name a column of bytes, of paths or of {bytes, path} by --image-column",
            )
        return cls(paths, root, chosen)

    @property
    def name(self) -> str:
        """Folder, first file and number of files: the manifest holds no absolute path."""
        return f"parquet:{name_of(self.paths)}"

    @property
    def expected(self) -> int:
        """The rows of all files that can be opened."""
        return sum(map(row_count, self.paths))

    def __iter__(self) -> Iterator[Sample]:
        arrow, below = arrow_library(), None
        for path, origin in with_origins(self.paths):
            try:
                file = opened_parquet(path)
                if missing := [n for n in self.columns.names() if n not in file.schema_arrow.names]:
                    yield damaged(origin, f"no column {missing[0]!r}, which the first file has")
                    continue
                names = class_names(file.schema_arrow.metadata, self.columns.identity)
            except (arrow.ArrowException, OSError) as fault:
                yield damaged(origin, said(fault))
                continue
            root = os.path.realpath(self.root or path.parent)
            below = below if below and below.root == root else Below(root)
            rows = Rows(self.columns, below, names)
            with file:
                yield from _of_file(file, origin, rows)


@dataclass(frozen=True)
class Rows:
    """How the rows of a file become samples.

    Attributes:
        columns: their names.
        below: finds images that are given as paths.
        names: of people, by number, or None.
    """

    columns: Columns
    below: Below
    names: list[str] | None

    def sample(self, row: Mapping[str, Any], origin: str) -> Sample:
        """The photograph of one row."""
        try:
            identity = self._identity(row[self.columns.identity])
            points = row[self.columns.landmarks] if self.columns.landmarks else None
            landmarks = None if points is None else landmarks_of(points)
            return self._image(row[self.columns.image], origin, identity, landmarks)
        except Unusable as fault:
            return damaged(origin, fault.reason)

    def _identity(self, value: object) -> str:
        person = identity_of(value)
        if self.names is None:
            return person
        if not isinstance(value, int) or value >= len(self.names):
            raise Unusable(f"label {person}, the file names {len(self.names)} people")
        return identity_of(self.names[value])

    def _image(self, image: Any, origin: str, person: str, points: Landmarks | None) -> Sample:
        if isinstance(image, dict):
            image = image.get("path") if image.get("bytes") is None else image["bytes"]
        if image is None:
            raise Unusable("no image in the row")
        if isinstance(image, str):
            read = partial(read_file, self.below(image), follow=False)
            return Sample(origin, person, read, points)
        if len(image) > MAX_FILE_BYTES:
            raise Unusable(f"image larger than {MAX_FILE_BYTES >> 20} MiB")
        return held(origin, person, image, points)


def _of_file(file: Any, origin: str, rows: Rows) -> Iterator[Sample]:
    """The rows of one file; what cannot be read of a row group is one damaged sample."""
    arrow, first = arrow_library(), 0
    for group in range(file.num_row_groups):
        count, done = file.metadata.row_group(group).num_rows, 0
        fault = bomb(file.metadata.row_group(group), rows.columns.image)
        try:
            for batch in () if fault else _batches(file, group, rows.columns):
                for at in range(batch.num_rows):
                    yield rows.sample(_Row(batch, at), f"{origin}/{first + done}")
                    done += 1
        except (arrow.ArrowException, OSError) as error:
            fault = said(error)
        if fault or done != count:
            lost = count - done
            reason = f"{lost} rows of row group {group}: {fault or 'missing'}"
            yield damaged(f"{origin}/{first + done}", reason, photographs=max(1, lost))
        first += count


class _Row(Mapping[str, Any]):
    """One row of a batch, each value made when it is asked for."""

    def __init__(self, batch: Any, at: int) -> None:
        self._batch, self._at = batch, at

    def __getitem__(self, name: str) -> Any:
        try:
            return self._batch.column(name)[self._at].as_py()
        except (ValueError, OverflowError) as fault:  # text that is no Unicode
            raise Unusable(f"column {name!r}: {fault}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.schema.names)

    def __len__(self) -> int:
        return int(self._batch.num_columns)


def _batches(file: Any, group: int, columns: Columns) -> Iterator[Any]:
    return iter(
        file.iter_batches(
            batch_size=BATCH_ROWS, row_groups=[group], columns=columns.names(), use_threads=False
        )
    )
