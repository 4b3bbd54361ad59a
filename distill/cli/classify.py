"""`pairdistill classify`: who is in these photographs."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import Aligned, DeviceName, Photographs, RunWeights
from distill.cli.not_tried import photographs_among

if TYPE_CHECKING:
    from distill.classify import Answer

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
) -> None:
    """Name the person in each photograph.

    **Examples**

        pairdistill classify runs/demo photos/ holiday.jpg

        pairdistill classify runs/demo/model.safetensors photos/ --top 5 --out answers.csv

    Faces are found and aligned first. A photograph with no face, with several, or that cannot be
    read gets a row that says so in its status.
    Exit status: 0 at least one photograph was classified, 1 none was, 2 a mistake in the input.
    """
    chosen = form or form_of(out)
    answers = answer(weights, photographs, aligned=aligned, top=top, device=device, out=out)
    deliver(answers, chosen, out)
    if not any(a.top for a in answers):
        raise typer.Exit(NOTHING_CLASSIFIED)


def form_of(out: Path | None) -> Form:
    """The format that the ending of a file asks for; a table if none."""
    ending = out.suffix.lower().removeprefix(".") if out else ""
    return Form(ending) if ending in ("csv", "json") else Form.TABLE


def answer(
    weights: Path,
    paths: Sequence[Path],
    *,
    aligned: bool,
    top: int,
    device: str,
    out: Path | None,
) -> list[Answer]:
    """Classify, with a progress bar."""
    from distill.classify import ask
    from distill.config import as_override
    from distill.console import progress_bar
    from distill.files import check_room_for
    from distill.ranks import from_environment
    from distill.trained import restore

    if out is not None:
        check_room_for(out)
    files = photographs_among(paths)
    trained = restore(weights, [as_override("run.device", device)])
    with progress_bar("classify", len(files)) as bar:
        return ask(
            trained,
            files,
            aligned=aligned,
            top=top,
            device=from_environment(trained.config, {}).device,
            advance=bar.advance,
        )


def deliver(answers: list[Answer], form: Form, out: Path | None) -> None:
    """Write the answers to ``out``, or to standard output."""
    from distill.classify import rendered
    from distill.console import say
    from distill.files import write_whole

    if out is not None:
        write_whole(out, rendered(answers, form))
        say(f"{len(answers)} rows: {out}")
    elif form is Form.TABLE and sys.stdout.isatty():
        show_rows(answers)
    else:
        sys.stdout.buffer.write(rendered(answers, form))


def show_rows(answers: list[Answer]) -> None:
    """A table of answers on the terminal."""
    from distill.classify.output import as_table
    from distill.console import show

    show(as_table(answers))
