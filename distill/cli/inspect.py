"""`pairdistill inspect`: what is in a data set, before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.source_options import SourceWords

if TYPE_CHECKING:
    from distill.data.inspect import Inspection

BAR_WIDTH = 40
"""Characters of the longest bar of the histogram."""


def inspect_command(
    source: Annotated[
        str,
        typer.Argument(
            help="What `pack` takes: a folder of people, train.rec, parquet, tar shards, a CSV "
            "list; or a verification set (.bin).",
            show_default=False,
        ),
    ],
    min_images: Annotated[
        int, typer.Option(min=1, help="Count the people with fewer photographs than this.")
    ] = 2,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Read the headers of images only: faster, finds less damage."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    *,
    where: SourceWords,
) -> None:
    """Count what a data set holds: people, images, sizes, colours, damage and duplicates.

    **Examples**

        pairdistill inspect ms1mv3/

        pairdistill inspect 'shards/train-{000..127}.tar' --min-images 5 --json

    Reads everything once and writes nothing. Duplicates are images with the same bytes.
    """
    if source.endswith(".bin"):
        show_verification_set(Path(source), as_json=json)
        return
    from distill.console import progress_bar
    from distill.data.inspect import inspect

    photographs = where.open(source)
    with progress_bar("inspecting", photographs.expected) as bar:
        found = inspect(photographs, bar.advance, quick=quick)
    if json:
        print_json(found.described(min_images))
    else:
        show_inspection(found, min_images)


def print_json(value: object) -> None:
    """JSON on standard output; names that are no text as escapes."""
    import json

    typer.echo(json.dumps(value, indent=2))


def show_verification_set(path: Path, *, as_json: bool) -> None:
    """Say what is in a ``.bin``, every image of which is decoded."""
    from distill.console import say
    from distill.data.images import Unusable, facts
    from distill.data.verification_set import read_verification_set

    found = read_verification_set(path)
    bad: list[str] = []
    for number in range(len(found.images)):
        try:
            facts(found.image(number), decoded=True)
        except Unusable as fault:
            bad.append(f"image {number}: {fault.reason}")
    pairs, same, images = len(found.same), sum(found.same), len(found.images)
    if as_json:
        print_json({"pairs": pairs, "same": same, "damaged": len(bad), "damaged_first": bad[:20]})
        return
    say(f"{path.name}: {pairs} pairs, {same} of one person; {len(bad)} of {images} images damaged")
    for line in bad[:20]:
        say(f"  {line}")


def show_inspection(found: Inspection, min_images: int) -> None:
    """Tables on the terminal."""
    from distill.console import say

    few = found.few(min_images)
    say(f"{found.source}: {found.photographs} photographs of {len(found.people)} people")
    say(f"  {found.bytes / 1e6:.1f} MB, {found.with_landmarks} with landmarks")
    say(f"  {found.duplicates} duplicates (the same bytes as one before)")
    say(f"  {len(few)} people with fewer than {min_images} photographs{_some(few)}")
    say(f"  {found.damaged} damaged")
    for reason, count in found.reasons.most_common(5):
        say(f"    {count} x {reason}")
    for origin, reason in found.shown[:5]:
        say(f"    first: {origin}: {reason}")
    sizes = [(f"{w}x{h}", count) for (w, h), count in found.sizes.most_common(10)]
    show_counts("photographs a person", "people", found.histogram())
    show_counts("width x height", "photographs", sizes)
    show_counts("colour", "photographs", found.colours.most_common(10))


def show_counts(what: str, counted: str, rows: list[tuple[str, int]]) -> None:
    """A table with a bar for each row."""
    from rich.table import Table

    from distill.console import show

    most = max((count for _, count in rows), default=1)
    table = Table(what, counted, "", box=None, pad_edge=False, header_style="bold")
    for name, count in rows:
        table.add_row(name, str(count), "█" * max(round(BAR_WIDTH * count / most), 1))
    show(table)


def _some(names: list[str]) -> str:
    """The first few names."""
    return ": " + ", ".join(names[:5]) + (", ..." if names[5:] else "") if names else ""
