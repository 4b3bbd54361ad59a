"""`pairdistill doctor`: what works on this machine, as a table or as JSON."""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated

import typer

from distill.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from distill.doctor.machine import Check

EXTRA_CHECKS = "pairdistill.checks"
"""Entry points of other packages' checks."""
BROKEN = 1
"""Exit status when something needed does not work."""


def doctor_command(
    json: Annotated[
        bool, typer.Option("--json", help="Print the rows as JSON instead of a table.")
    ] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Try submitting to Slurm too, instead of this machine.")
    ] = False,
    job: Annotated[
        bool, typer.Option("--job", help="With --slurm: examine a node as well, in a small job.")
    ] = False,
    site: Annotated[
        str,
        typer.Option(
            "--site",
            help="With --job: profile whose modules, container, Python and nodes it takes.",
            show_default="none",
        ),
    ] = "",
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="With --job: GPUs to ask for.")] = 0,
    partition: Annotated[
        str,
        typer.Option(
            "--partition", help="With --job: queue.", show_default="the site's, or the cluster's"
        ),
    ] = "",
    account: Annotated[
        str,
        typer.Option(
            "--account", help="With --job: who is charged.", show_default="the site's, or yours"
        ),
    ] = "",
) -> None:
    """Try every part that pairdistill needs on this machine, and say how to mend what fails.

    Takes about half a minute. Exit status 0: all that is needed works; 1: something does not.

    **Examples**

        pairdistill doctor --json > doctor.json

        pairdistill doctor --slurm --job --site mine --gpus 1
    """
    from distill.console import say_json
    from distill.doctor.machine import all_needed_work

    if job and not slurm:
        raise UserError("--job without --slurm", fix="write doctor --slurm --job")
    node: dict[str, str | int] = {
        "site": site,
        "gpus": gpus,
        "partition": partition,
        "account": account,
    }
    for name, value in node.items():
        if value and not job:
            raise UserError(f"--{name} without --job", fix="write doctor --slurm --job")
    checks = _examine_slurm(job=job, **node) if slurm else _examine()
    works = all_needed_work(checks)
    if json:
        rows = [dataclasses.asdict(check) for check in checks]
        say_json({"ok": works, "checks": rows})
    else:
        _print_table(checks, works)
    if not works:
        raise typer.Exit(BROKEN)


def _examine_slurm(**asked: bool | int | str) -> list[Check]:
    """What another package checks: the trainer itself knows nothing of clusters."""
    found = next(iter(entry_points(group=EXTRA_CHECKS, name="slurm")), None)
    if found is None:
        raise UserError("--slurm: the launcher is not installed", fix="run `make setup`")
    checks: list[Check] = found.load()(**asked)
    return checks


def _examine() -> list[Check]:
    from distill.console import progress_bar
    from distill.doctor.machine import CHECKS, run_checks

    checks = []
    with progress_bar("examining", len(CHECKS)) as bar:
        for check in run_checks():
            checks.append(check)
            bar.advance()
    return checks


def _print_table(checks: list[Check], works: bool) -> None:
    from distill.console import say, show

    show(_table(checks))
    missing = [check.name for check in checks if check.needed and not check.ok]
    say("Everything needed works." if works else f"Not working: {', '.join(missing)}.")


def _table(checks: list[Check]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("part", "", "found, and what to do", title="pairdistill doctor")
    for check in checks:
        found = Text(check.found)
        if check.fix:
            found.append(f"\nfix: {check.fix}", style="bold")
        table.add_row(check.name, _mark(check), found)
    return table


def _mark(check: Check) -> str:
    """How a row went, in one coloured word."""
    if check.ok:
        return "[green]ok[/]"
    return "[red]FAILS[/]" if check.needed else "[yellow]absent[/]"
