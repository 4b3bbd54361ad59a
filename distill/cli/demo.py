"""`pairdistill demo`: the whole way on the embedded people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli.arguments import settings_like


def demo_command(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="a.b=c",
            help="Settings that replace those of the demo.",
            autocompletion=settings_like,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for packs, runs and the report.")] = Path(
        "runs/demo"
    ),
    ranks: Annotated[int, typer.Option(min=1, help="Processes of each training.")] = 2,
    people: Annotated[
        int, typer.Option(min=2, max=10, help="How many of the ten people take part.")
    ] = 10,
) -> None:
    """Train one network three ways on ten generated people, and compare.

    Detects and aligns their faces, makes pairs, packs them, trains on first images alone, on
    pairs, and on pairs with the similarity term, evaluates all three on held-out photographs,
    and names a few of these. What has not changed since the last time is reused.

    **Examples**

        pairdistill demo

        pairdistill demo --out /tmp/demo --people 4 train.steps=60
    """
    from distill.demo.story import run_demo

    run_demo(out, ranks, people, overrides or [])
