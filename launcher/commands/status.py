"""`pairdistill status`: where runs stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands import options

if TYPE_CHECKING:
    from rich.table import Table

    from distill.errors import UserError
    from launcher.status import RunStatus


def status_command(
    runs: options.Runs = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """State, step, loss, speed and checkpoints of runs.

    **Examples**

        pairdistill status

        pairdistill status runs/a runs/b --json
    """
    import dataclasses

    from distill.console import say_json, show
    from launcher.status import find_runs, statuses_so_far

    found, silence = statuses_so_far(find_runs(runs or [Path("runs")]))
    tell(silence)
    if json:
        say_json([dataclasses.asdict(status) for status in found])
    else:
        show(table(found))


def tell(silence: UserError | None) -> None:
    """Say that Slurm did not answer, if so, before what is known without it."""
    from distill.console import warn

    if silence is not None:
        warn(f"{silence.what}; states are those of the accounting, if it has any")


def table(found: list[RunStatus]) -> Table:
    """A row for each run."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "job", "state", "step", "loss", "images/s", "left", "saved", "starts"):
        shown.add_column(name, justify="left" if name in ("run", "job", "state") else "right")
    for status in found:
        state = Text(status.state)
        if status.reason:
            state.append(f"\n{status.reason}", style="dim")
        shown.add_row(Text(status.run), status.job, state, *_numbers(status))
    return shown


def _numbers(status: RunStatus) -> list[str]:
    """The columns of numbers, empty where there is none yet."""
    return [
        f"{status.step}/{status.total_steps or '?'}",
        "" if status.loss is None else f"{status.loss:.4g}",
        "" if status.images_per_second is None else f"{status.images_per_second:.0f}",
        "" if status.eta_seconds is None else duration(status.eta_seconds),
        str(status.checkpoints[-1]) if status.checkpoints else "",
        str(status.starts) if status.job else "",
    ]


def duration(seconds: float) -> str:
    """e.g. `2d 3h`, `4h 05m`, `12m`, `40s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m" if minutes else f"{rest}s"
