"""Answers as a table, as CSV and as JSON; names may hold anything, and come back as they were.

A file name need not be text. Bytes that are no UTF-8 travel through Python as lone surrogates: CSV
gives the very bytes back, JSON writes the surrogates as escapes, the table escapes them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distill.classify.answers import OK, Answer
from distill.errors import one_line
from distill.tables import print_table


def as_table(answers: Sequence[Answer]) -> Table:
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


def as_plain_table(answers: Sequence[Answer]) -> bytes:
    """The table as text."""
    text = io.StringIO()
    print_table(Console(file=text, force_terminal=False, no_color=True), as_table(answers))
    return text.getvalue().encode()


def as_csv(answers: Sequence[Answer]) -> bytes:
    """Columns photograph, status, person, probability, person_2, probability_2, …; header first."""
    longest = max((len(answer.top) for answer in answers), default=0) or 1
    header = ["photograph", "status", "person", "probability"]
    for place in range(2, longest + 1):
        header += [f"person_{place}", f"probability_{place}"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for answer in answers:
        cells = [cell for name, share in answer.top for cell in (name, f"{share:.6f}")]
        cells += [""] * (2 * longest - len(cells))
        writer.writerow([answer.photograph, answer.status, *cells])
    return text.getvalue().encode("utf-8", "surrogateescape")


def as_json(answers: Sequence[Answer]) -> bytes:
    """A list of objects: photograph, status, person, probability, top."""
    rows = [
        {
            "photograph": str(answer.photograph),
            "status": answer.status,
            "person": answer.person,
            "probability": answer.probability,
            "top": [{"person": name, "probability": share} for name, share in answer.top],
        }
        for answer in answers
    ]
    return (json.dumps(rows, indent=2, allow_nan=False) + "\n").encode()


FORMATS: dict[str, Callable[[Sequence[Answer]], bytes]] = {
    "table": as_plain_table,
    "csv": as_csv,
    "json": as_json,
}


def rendered(answers: Sequence[Answer], form: str) -> bytes:
    """``answers`` in one of `FORMATS`."""
    return FORMATS[form](answers)
