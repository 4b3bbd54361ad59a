"""Who is searched for among whom in IJB-B and IJB-C: two galleries of people, and probes.

A gallery has one template a person, and no person of the other; so of every probe one gallery knows
the person, and the other does not. The lists are IJB's own, a line for each image, with a first
line that names the columns; those used are TEMPLATE_ID and SUBJECT_ID.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.arrays import Numbers
from distill.data.protocols.lines import Line
from distill.data.sources.paths import opened
from distill.errors import UserError

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
COLUMNS = ("TEMPLATE_ID", "SUBJECT_ID")
MAX_FIELD = 1 << 16


class Enrolled(NamedTuple):
    """Templates and whose they are.

    Attributes:
        name: of a gallery, or ``mixed`` for probes.
        templates: numbers of the templates, (K,) int64, rising.
        people: the subject of each, (K,) int64.
    """

    name: str
    templates: Numbers
    people: Numbers


class Searches(NamedTuple):
    """Two galleries, and what is searched for in each."""

    galleries: tuple[Enrolled, ...]
    probes: Enrolled


def read_searches(meta: Path, kind: str, ids: Numbers) -> Searches | None:
    """The searches of a set; None where none of the three lists is there.

    Args:
        meta: the folder of lists.
        kind: ``ijbb`` or ``ijbc``.
        ids: what the lists call each template, rising.

    Raises:
        UserError: only some are there, or one is damaged; file and line are named.
    """
    galleries = {name: meta / f"{kind}_1N_gallery_{name}.csv" for name in GALLERIES[kind]}
    probes = meta / f"{kind}_1N_probe_mixed.csv"
    missing = [path for path in (*galleries.values(), probes) if not path.exists()]
    if len(missing) == len(galleries) + 1:
        return None
    if missing:
        raise UserError(
            f"{missing[0]}: no such file, though other lists of searches are there",
            fix="add it; or take all of them out, and pairs alone are measured",
        )
    return Searches(
        tuple(read_enrolled(path, name, ids, once=True) for name, path in galleries.items()),
        read_enrolled(probes, "mixed", ids, once=False),
    )


def read_enrolled(path: Path, name: str, ids: Numbers, *, once: bool) -> Enrolled:
    """The templates of one list; with ``once`` no person may have two of them."""
    known = {int(template): number for number, template in enumerate(ids)}
    people: dict[int, int] = {}
    owners: dict[int, int] = {}
    for line in rows_of(path):
        template, person = line.whole(0), line.whole(1)
        check_known(line, template, known)
        if people.setdefault(known[template], person) != person:
            raise line.wrong(f"template {template} is of two people")
        if once and owners.setdefault(person, template) != template:
            raise line.wrong(f"person {person} has two templates in one gallery")
    if not people:
        raise UserError(f"{path}: no templates in it", fix="get the file anew")
    order = sorted(people)
    return Enrolled(name, np.array(order), np.array([people[number] for number in order]))


def check_known(line: Line, template: int, known: Container[int]) -> None:
    """Refuse a template that no image is of."""
    if template not in known:
        raise line.wrong(f"template {template} has no images", fix="get all lists anew")


def rows_of(path: Path) -> Iterator[Line]:
    """Template and subject of each line after the first, as the first line places them."""
    with opened(path) as (file, _), io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(bounded(path, text))
        places = columns(Line(path, 1, next(reader, [])))
        for fields in reader:
            line = Line(path, reader.line_num, fields)
            if not fields:
                continue
            if len(fields) <= max(places):
                raise line.wrong(f"{len(fields)} fields, too few for {' and '.join(COLUMNS)}")
            yield line._replace(fields=[fields[place].strip() for place in places])


def bounded(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    """Lines of text, none too long or no text at all."""
    number = 0
    while True:
        number += 1
        try:
            line = text.readline(MAX_FIELD + 1)
        except UnicodeDecodeError:
            raise Line(path, number, []).wrong("no UTF-8 text") from None
        if not line:
            return
        if len(line) > MAX_FIELD or "\0" in line:
            raise Line(path, number, []).wrong("no line of a table")
        yield line


def columns(first: Line) -> list[int]:
    """Where the columns are."""
    titles = [title.strip().upper() for title in first.fields]
    missing = [name for name in COLUMNS if name not in titles]
    if missing:
        raise first.wrong(f"no column {missing[0]}", fix=f"name the columns {','.join(COLUMNS)}")
    return [titles.index(name) for name in COLUMNS]
