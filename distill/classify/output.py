"""Answers as a table, as CSV and as JSON; names may hold anything, and come back as they were.

CSV and JSON are written as answers come. A file name need not be text. Bytes that are no UTF-8
travel through Python as lone surrogates: CSV gives the very bytes back, JSON writes the surrogates
as escapes, the table escapes them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distill.classify.answers import OK, Answer
from distill.errors import one_line
from distill.tables import print_table


def as_table(answers: Iterable[Answer]) -> Table:
    """A table for the terminal."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for title, justify in (("photograph", "left"), ("person", "left"), ("probability", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    table.add_column("next")
    for answer in answers:
        photograph = Text(one_line(str(answer.photograph)))
        if answer.status != OK:
            table.add_row(photograph, Text(answer.status, style="yellow"))
            continue
        (person, probability), *others = answer.top
        rest = ", ".join(f"{one_line(name)} {share:.3f}" for name, share in others)
        table.add_row(photograph, Text(one_line(person)), f"{probability:.3f}", Text(rest))
    return table


def as_plain_table(answers: Iterable[Answer]) -> Iterator[bytes]:
    """The table as text; its widths take all answers."""
    text = io.StringIO()
    print_table(Console(file=text, force_terminal=False, no_color=True), as_table(answers))
    yield text.getvalue().encode()


def as_csv(answers: Iterable[Answer]) -> Iterator[bytes]:
    """Columns photograph, status, person, probability, person_2, probability_2, …; header first.

    As many people have columns as the first photograph has that shows somebody: all have the same.
    """
    rest = iter(answers)
    first = list(_until_named(rest))
    people = len(first[-1].top) if first else 0
    header = ["photograph", "status", "person", "probability"]
    for place in range(2, people + 1):
        header += [f"person_{place}", f"probability_{place}"]
    yield _csv_line(header)
    for answer in chain(first, rest):
        cells = [cell for name, share in answer.top for cell in (name, f"{share:.6f}")]
        cells += [""] * (len(header) - 2 - len(cells))
        yield _csv_line([answer.photograph, answer.status, *cells])


def _until_named(answers: Iterator[Answer]) -> Iterator[Answer]:
    """Answers up to the first with a person."""
    for answer in answers:
        yield answer
        if answer.top:
            return


def _csv_line(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")


def as_json(answers: Iterable[Answer]) -> Iterator[bytes]:
    """A list of objects: photograph, status, person, probability, top."""
    before = "["
    for answer in answers:
        text = json.dumps(_as_object(answer), indent=2, allow_nan=False)
        yield f"{before}\n{text}".replace("\n", "\n  ").encode()
        before = ","
    yield b"[]\n" if before == "[" else b"\n]\n"


def _as_object(answer: Answer) -> dict[str, Any]:
    return {
        "photograph": str(answer.photograph),
        "status": answer.status,
        "person": answer.person,
        "probability": answer.probability,
        "top": [{"person": name, "probability": share} for name, share in answer.top],
    }


FORMATS: dict[str, Callable[[Iterable[Answer]], Iterator[bytes]]] = {
    "table": as_plain_table,
    "csv": as_csv,
    "json": as_json,
}
"""Pieces of a file; those of CSV and JSON come as answers do."""


def rendered(answers: Iterable[Answer], form: str) -> bytes:
    """``answers`` in one of `FORMATS`."""
    return b"".join(FORMATS[form](answers))
