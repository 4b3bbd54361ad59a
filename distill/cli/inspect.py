"""`pairdistill inspect`: what is in a data set, before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.alike import tell_alike
from distill.cli.not_tried import tell_passed_over
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
            "list; or what `evaluate` takes: lfw.bin, pairs.txt, a folder of IJB-B or IJB-C.",
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

        pairdistill inspect /data/IJBC --quick

    Reads everything once and writes nothing. Duplicates are images with the same bytes.
    """
    if is_for_evaluation(source, where):
        inspect_sets(Path(source), quick=quick, as_json=json)
        return
    from distill.console import progress_bar, say_json
    from distill.data.inspect import inspect

    photographs = where.open(source)
    with progress_bar("inspecting", photographs.expected) as bar:
        found = inspect(photographs, bar.advance, quick=quick)
    if json:
        say_json(found.described(min_images))
    else:
        show_inspection(found, min_images)
    tell_alike(found.people)
    tell_passed_over(photographs)
    note_sets(Path(source))


def is_for_evaluation(source: str, where: SourceWords) -> bool:
    """Whether ``source`` is what `evaluate` reads, and not what `pack` reads."""
    from distill.data.protocols.found import is_only_set
    from distill.data.sources.open import format_of

    path = Path(source)
    if where.form or not is_only_set(path):
        return False
    return path.is_file() or format_of(source) == "folder"


def inspect_sets(path: Path, *, quick: bool, as_json: bool) -> None:
    """Say what is in the verification sets at ``path``; in JSON a folder is a list of them."""
    from distill.console import progress_bar, say, say_json
    from distill.data.protocols.found import read_sets
    from distill.data.protocols.inspect import inspect_set

    sets = read_sets([path])
    with progress_bar("inspecting", sum(map(len, sets))) as bar:
        found = [inspect_set(one, bar.advance, quick=quick) for one in sets]
    if as_json:
        described = [one.described() for one in found]
        say_json({"sets": described} if path.is_dir() else described[0])
        return
    for line in (line for one in found for line in one.lines()):
        say(line)


def note_sets(path: Path) -> None:
    """Point at the sets beside the photographs of a folder, which were not looked at."""
    from distill.console import note
    from distill.data.protocols.found import sets_in

    if path.is_dir() and (others := sets_in(path)):
        names = ", ".join(other.name for other in others)
        note(f"{path} also holds what `evaluate` reads; name it to look into it: {names}")


def show_inspection(found: Inspection, min_images: int) -> None:
    """Tables on the terminal."""
    from distill.console import say

    few = found.few(min_images)
    say(f"{found.source}: {found.photographs} photographs of {len(found.people)} people")
    say(f"  {found.bytes / 1e6:.1f} MB, {found.with_landmarks} with landmarks")
    say(f"  {found.duplicates} duplicates (the same bytes as one before)")
    say(f"  {len(few)} people with fewer than {min_images} photographs{_some(few)}")
    say(f"  {found.damaged} damaged")
    for kind, count in found.reasons.most_common(5):
        say(f"    {count} x {_example(found, kind)}")
    for origin, reason in found.shown[:5]:
        say(f"    first: {origin}: {reason}")
    sizes = [(f"{w}x{h}", count) for (w, h), count in found.sizes.most_common(10)]
    show_counts("photographs a person", "people", found.histogram())
    show_counts("width x height", "photographs", sizes)
    show_counts("colour", "photographs", found.colours.most_common(10))


def show_counts(what: str, counted: str, rows: list[tuple[str, int]]) -> None:
    """A table with a bar for each row."""
    from rich.table import Table

    from distill.console import console, show

    if not rows:
        return
    most = max(count for _, count in rows)
    block = "█" if console.encoding.startswith("utf") else "#"
    table = Table(what, counted, "", box=None, pad_edge=False, header_style="bold")
    for name, count in rows:
        table.add_row(name, str(count), block * max(round(BAR_WIDTH * count / most), 1))
    show(table)


def _example(found: Inspection, kind: str) -> str:
    """The first reason of a kind, where it is among those that are shown; numbers may differ."""
    from distill.data.inspect import kind_of

    same = [reason for _, reason in found.shown if kind_of(reason) == kind]
    if not same:
        return kind
    several = "#" in kind and found.reasons[kind] > 1
    return f"{same[0]}, and the like" if several else same[0]


def _some(names: list[str]) -> str:
    """The first few names."""
    return ": " + ", ".join(names[:5]) + (", ..." if names[5:] else "") if names else ""
