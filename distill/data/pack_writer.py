"""JPEG pairs in, a whole pack folder out: the last step of `pack`, and a way to small packs."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from distill.data.beton import BetonWriter
from distill.data.manifest import BETON_NAME, MANIFEST_NAME, Manifest, Pack, file_sha256, read_pack
from distill.files import disk_errors, sync_folder, write_whole


class EncodedPair(NamedTuple):
    """One pair, ready to be stored.

    Attributes:
        first: 112x112 JPEG of the sample.
        second: 112x112 JPEG of the processed image.
        label: index of the person.
        kind: index of the way the second image was made.
    """

    first: bytes
    second: bytes
    label: int
    kind: int


def write_pack(
    folder: Path,
    pairs: Iterable[EncodedPair],
    count: int,
    *,
    identities: Sequence[str],
    kinds: Sequence[str],
    named: Path | None = None,
    **description: Any,
) -> Pack:
    """Writes `pairs.beton` and `manifest.json` into ``folder``, which is made where it is missing.

    Args:
        folder: where to.
        pairs: consumed one by one, so memory stays flat.
        count: how many there will be.
        identities: names, indexed by label.
        kinds: names, indexed by kind; read after the last pair.
        named: what errors speak of instead of ``folder``.
        description: other fields of `Manifest`.

    Raises:
        UserError: the disk is full or the folder not writable.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    labels: Counter[int] = Counter()
    kind_counts: Counter[int] = Counter()
    with BetonWriter(folder / BETON_NAME, count, named=named) as writer:
        for pair in pairs:
            labels[pair.label] += 1
            kind_counts[pair.kind] += 1
            writer.append(*pair)
    manifest = Manifest(
        pairs=count,
        identities=list(identities),
        kinds=list(kinds),
        pairs_per_identity=[labels[i] for i in range(len(identities))],
        pairs_per_kind={name: kind_counts[i] for i, name in enumerate(kinds)},
        beton_bytes=(folder / BETON_NAME).stat().st_size,
        beton_sha256=file_sha256(folder / BETON_NAME),
        **{"purpose": "train", "photographs": count, **description},
    )
    text = manifest.model_dump_json(indent=1)
    write_whole(folder / MANIFEST_NAME, text.encode("utf-8"), named=named)
    return read_pack(folder)


def partial_folder(out: Path) -> Path:
    """Makes the folder, beside ``out``, in which its content grows until it is whole."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        partial.mkdir()
    return partial


def _remove_abandoned(out: Path) -> None:
    """Removes what packers of ``out`` that were killed left behind."""
    pattern = re.compile(re.escape(f".{out.name}.") + r"(\d+)\.(partial|old)")
    for entry in out.parent.iterdir():
        owner = pattern.fullmatch(entry.name)
        if owner and (int(owner[1]) == os.getpid() or not psutil.pid_exists(int(owner[1]))):
            shutil.rmtree(entry, ignore_errors=True)


def put_in_place(partial: Path, out: Path) -> None:
    """Renames ``partial`` to ``out``; what stood there, if anything, is removed after that."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    with disk_errors(out):
        if out.exists():
            out.rename(old)
        partial.rename(out)
        sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)
