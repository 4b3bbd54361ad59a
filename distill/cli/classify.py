"""`pairdistill classify`: who is in these photographs."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import (
    Aligned,
    DeviceName,
    Photographs,
    RunWeights,
    Workers,
    at_most_one_a_core,
)
from distill.cli.not_tried import photographs_among

if TYPE_CHECKING:
    from distill.classify import Answer
    from distill.console import Bar

NOTHING_CLASSIFIED = 1
"""Exit status where every photograph got a row, and not one of them a person."""


class Form(enum.StrEnum):
    """How answers are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def classify_command(
    weights: RunWeights,
    photographs: Photographs,
    aligned: Aligned = False,
    top: Annotated[int, typer.Option(min=1, help="People to name for each photograph.")] = 3,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format", help="How to write the answers.", show_default="by the ending of --out"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write to.", show_default="standard output")
    ] = None,
    device: DeviceName = "auto",
    workers: Workers = 0,
) -> None:
    """Name the person in each photograph.

    **Examples**

        pairdistill classify runs/demo photos/ holiday.jpg

        pairdistill classify runs/demo/model.safetensors photos/ --top 5 --out answers.csv

    Faces are found and aligned first. A photograph with no face, with several, or that cannot be
    read gets a row that says so in its status. Rows of csv and json come as they are made, a table
    when all are there: its columns are as wide as the longest row. A file appears when it is whole.
    Exit status: 0 at least one photograph was classified, 1 none was, 2 a mistake in the input.
    """
    from distill.classify import answers_of
    from distill.config import as_override
    from distill.files import check_room_for
    from distill.processes.interrupt import clearing_up_when_ended
    from distill.ranks import from_environment
    from distill.trained import restore

    chosen, seen = form or form_of(out), Seen()
    if out is not None:
        check_room_for(out)
    files = photographs_among(photographs)
    trained = restore(weights, [as_override("run.device", device)])
    with clearing_up_when_ended(), ExitStack() as beside:
        bar = beside.enter_context(bar_beside(chosen, out, len(files)))
        found = answers_of(
            trained,
            files,
            aligned=aligned,
            top=top,
            device=from_environment(trained.config, {}).device,
            advance=bar.advance,
            workers=at_most_one_a_core(workers),
        )
        answers: Iterable[Answer] = seen.of(found)
        if chosen is Form.TABLE:
            answers = list(answers)
            beside.close()  # the table stands under the bar
        deliver(answers, chosen, out)
    seen.tell(out)


class Seen:
    """Counts answers that pass."""

    def __init__(self) -> None:
        self._rows = self._named = 0

    def of(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The same answers."""
        for answer in answers:
            self._rows += 1
            self._named += answer.person is not None
            yield answer

    def tell(self, out: Path | None) -> None:
        """Say how many are in a file; ends the program where none names anybody."""
        from distill.console import say

        if out is not None:
            say(f"{self._rows} rows: {out}")
        if not self._named:
            raise typer.Exit(NOTHING_CLASSIFIED)


def form_of(out: Path | None) -> Form:
    """The format that the ending of a file asks for; a table if none."""
    ending = out.suffix.lower().removeprefix(".") if out else ""
    return Form(ending) if ending in ("csv", "json") else Form.TABLE


def bar_beside(form: Form, out: Path | None, total: int) -> AbstractContextManager[Bar]:
    """A progress bar; rows that come on the same terminal meanwhile are progress enough."""
    from distill.console import Bar, progress_bar

    if form is not Form.TABLE and out is None and sys.stdout.isatty():
        return nullcontext(Bar(None, "classify", None))
    return progress_bar("classify", total)


def deliver(answers: Iterable[Answer], form: Form, out: Path | None) -> None:
    """Write answers, as they come, to ``out`` or to standard output."""
    from distill.classify import FORMATS
    from distill.files import write_as_it_comes

    if out is not None:
        write_as_it_comes(out, FORMATS[form](answers))
    elif form is Form.TABLE and sys.stdout.isatty():
        show_rows(answers)
    else:
        for piece in FORMATS[form](answers):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def show_rows(answers: Iterable[Answer]) -> None:
    """A table of answers on the terminal."""
    from distill.classify.output import as_table
    from distill.console import show

    show(as_table(answers))
