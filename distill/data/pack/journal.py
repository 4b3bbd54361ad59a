"""What the first round found, written down as it goes: a killed packer need not look again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from distill.data.pack.spool import SpoolWriter, read_face, rows_in
from distill.data.pack.work import Prepared
from distill.data.sources import Sample, Source
from distill.files import disk_errors

JOURNAL_NAME = "journal.jsonl"

Prepare = Callable[[Iterator[Sample]], Iterator[tuple[Sample, Prepared]]]


def journalled(
    source: Source, prepare: Prepare, spool: SpoolWriter
) -> Iterator[tuple[Sample, Prepared]]:
    """Every photograph with what came of it: first those an earlier packer has looked at.

    The caller appends each face to ``spool`` before it asks for the next photograph.

    Args:
        source: of photographs.
        prepare: looks at those that are left.
        spool: of the faces; its rows of an earlier packer are still in its file. The journal lies
            beside it.
    """
    path, named = spool.path.with_name(JOURNAL_NAME), spool.named
    known = _known(path, rows_in(spool.path))
    samples = iter(source)
    matching: list[dict[str, Any]] = []
    for record in known:
        sample = next(samples, None)
        if sample is None or [sample.origin, sample.identity] != record["of"]:
            matching, samples = [], iter(source)  # other photographs than then: look at all again
            break
        matching.append(record)
    yield from _written_down(path, _replayed(source, matching, spool.path), named, "w")
    if matching:
        samples = iter(source)
        for _ in matching:
            next(samples)
    yield from _written_down(path, prepare(samples), named, "a")


def _known(path: Path, faces: int) -> list[dict[str, Any]]:
    """The records of the journal, as far as they are whole and their faces are in the spool."""
    records: list[dict[str, Any]] = []
    if not path.exists():
        return records
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break
            record = json.loads(line)
            faces -= record["face"]
            if faces < 0:
                break
            records.append(record)
    return records


def _replayed(
    source: Source, records: list[dict[str, Any]], spool: Path
) -> Iterator[tuple[Sample, Prepared]]:
    """Known photographs with their faces."""
    row = 0
    for sample, record in zip(source, records, strict=False):
        found = dict(record["found"])
        found["sha256"] = bytes.fromhex(found["sha256"])
        yield sample, Prepared(face=read_face(str(spool), row) if record["face"] else None, **found)
        row += record["face"]


def _written_down(
    path: Path, found: Iterator[tuple[Sample, Prepared]], named: Path, mode: str
) -> Iterator[tuple[Sample, Prepared]]:
    """The same, each with a line in the journal once its face is in the spool."""
    partial = path.with_suffix(".partial") if mode == "w" else path
    with disk_errors(named):
        file = partial.open(mode, encoding="utf-8")
    with file:
        for sample, prepared in found:
            yield sample, prepared
            with disk_errors(named):
                file.write(json.dumps(_record(sample, prepared)) + "\n")
        with disk_errors(named):
            file.flush()
    if mode == "w":
        partial.replace(path)


def _record(sample: Sample, prepared: Prepared) -> dict[str, Any]:
    found = {f.name: getattr(prepared, f.name) for f in fields(prepared) if f.name != "face"}
    found["sha256"] = prepared.sha256.hex()
    return {
        "of": [sample.origin, sample.identity],
        "face": int(prepared.face is not None),
        "found": found,
    }
