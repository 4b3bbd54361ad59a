"""Tar files of samples: files of one name make a sample (the convention of webdataset).

``abc.jpg`` (or any other image) with ``abc.cls`` (the person's number), ``abc.json`` (an object
with an identity, perhaps landmarks) or ``abc.txt`` (the person's name); the first of these three
counts. The name ends at the first dot after the last slash, and files of a sample stand together.
Nothing is extracted; images are read where they lie in the tar file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from distill.data.images import Unusable
from distill.data.sources import Landmarks, Sample, damaged
from distill.data.sources.folder import IMAGE_ENDINGS, MAX_FILE_BYTES
from distill.data.sources.paths import files_of, name_of, opened, with_origins
from distill.data.sources.spans import Span
from distill.data.sources.tar import Member, members
from distill.data.sources.values import (
    IDENTITY_COLUMNS,
    LANDMARK_COLUMNS,
    identity_of,
    landmarks_of,
)

TAR_ENDING = ".tar"
LABEL_ENDINGS = (".cls", ".json", ".txt")
"""Files that say who is in the image, by precedence."""
MAX_LABEL_BYTES = 1 << 20
MAX_FILES_OF_A_SAMPLE = 64


@dataclass(frozen=True)
class ShardSource:
    """The samples of tar files, in the order of the files and within them.

    Attributes:
        paths: the tar files.
    """

    paths: tuple[Path, ...]

    @classmethod
    def at(cls, path: str) -> ShardSource:
        """One tar file, all of a folder, or those that a pattern with braces stands for.

        Raises:
            UserError: none there, one is missing, or the pattern stands for too many.
        """
        return cls(files_of(path, TAR_ENDING))

    @property
    def name(self) -> str:
        """Folder, first file and number of files: the manifest holds no absolute path."""
        return f"tar:{name_of(self.paths)}"

    @property
    def expected(self) -> None:
        """Only reading would tell."""
        return

    def __iter__(self) -> Iterator[Sample]:
        for path, origin in with_origins(self.paths):
            with opened(path) as (file, size):
                yield from _samples(path, origin, file, size)


@dataclass
class Group:
    """The files of one name.

    Attributes:
        key: that name.
        images: image files among them.
        labels: contents of the files that say who it is, by ending.
        fault: why the sample cannot be used; empty if it can.
        files: how many there are.
    """

    key: str
    images: list[Member] = field(default_factory=list)
    labels: dict[str, bytes] = field(default_factory=dict)
    fault: str = ""
    files: int = 0

    def add(self, member: Member, ending: str, file: BinaryIO) -> None:
        """Takes in a file of this name."""
        self.files += 1
        is_image, is_label = ending in IMAGE_ENDINGS, ending in LABEL_ENDINGS
        if self.files > MAX_FILES_OF_A_SAMPLE:
            self.fault = f"more than {MAX_FILES_OF_A_SAMPLE} files of one name"
        elif member.fault:
            self.fault = self.fault or f"{member.name}: {member.fault}"
        elif member.size > (MAX_FILE_BYTES if is_image else MAX_LABEL_BYTES):
            if is_image or is_label:
                self.fault = self.fault or f"{member.name}: too large ({member.size} bytes)"
        elif is_image:
            self.images.append(member)
        elif is_label:
            if ending in self.labels:
                self.fault = self.fault or f"two files {member.name}"
            try:
                self.labels[ending] = _content(file, member)
            except OSError as fault:
                self.fault = f"{member.name}: cannot be read: {fault.strerror or fault}"

    def sample(self, path: Path, shard: str) -> Sample:
        """The photograph, or why there is none."""
        name = self.images[0].name if self.images else self.key
        origin = f"{shard}/{name}"
        try:
            if self.fault:
                raise Unusable(self.fault)
            if len(self.images) != 1:
                raise Unusable(
                    f"{len(self.images)} images of one name" if self.images else "no image"
                )
            identity, landmarks = _told(self.labels)
        except Unusable as fault:
            return damaged(origin, fault.reason)
        image = self.images[0]
        read = partial(Span(image.offset, image.size).read, path)
        return Sample(origin, identity, read, landmarks)


def _samples(path: Path, shard: str, file: BinaryIO, size: int) -> Iterator[Sample]:
    """The samples of one tar file."""
    group: Group | None = None
    for member in members(file, size):
        key, ending = _split(member.name)
        if key.rpartition("/")[2] == "" and ending.startswith("._"):
            continue  # what the tar of macOS writes of a file's attributes, before each file
        if group is not None and (not member.name or key != group.key):
            yield group.sample(path, shard)
            group = None
        if not member.name:
            yield damaged(f"{shard}/@{member.header}", member.fault)
            continue
        group = group or Group(key)
        group.add(member, ending, file)
    if group is not None:
        yield group.sample(path, shard)


def _split(name: str) -> tuple[str, str]:
    """The name of a sample and the ending, in small letters, of one of its files."""
    folder, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return folder + slash + stem, (dot + ending).lower()


def _told(labels: dict[str, bytes]) -> tuple[str, Landmarks | None]:
    """Who it is and where the face is, from the files that say so."""
    ending = next((e for e in LABEL_ENDINGS if e in labels), None)
    if ending is None:
        raise Unusable(f"no label ({', '.join(LABEL_ENDINGS)})")
    about = _object(labels[".json"]) if ".json" in labels else {}
    points = next((about[name] for name in LANDMARK_COLUMNS if name in about), None)
    landmarks = None if points is None else landmarks_of(points)
    if ending == ".json":
        value = next((about[name] for name in IDENTITY_COLUMNS if name in about), None)
        return identity_of(value), landmarks
    text = labels[ending].decode("utf-8", "surrogateescape").strip()
    if ending == ".txt":
        return identity_of(text), landmarks
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Unusable(f".cls holds {text[:80]!r}, not a person's number")
    return str(int(text)), landmarks


def _object(data: bytes) -> dict[str, object]:
    """A JSON object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise Unusable(f".json cannot be read: {fault}") from None
    if not isinstance(found, dict):
        raise Unusable(".json holds no object")
    return found


def _content(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)
