"""How the program speaks: results on standard output, all else on standard error."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from textwrap import TextWrapper
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from distill.processes.streams import leave_lost_terminal
from distill.tables import print_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


class Speaker(Console):
    """A console that says where its reader has gone; rich would end the program with status 1."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise what rich caught."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


console = Speaker(highlight=False)
"""Results: standard output."""

errors = Speaker(stderr=True, highlight=False)
"""Progress, warnings and errors: standard error, so that piped results stay clean."""


class Bar:
    """Progress of one long part: a live bar on a terminal, a line every tenth elsewhere."""

    def __init__(self, progress: Progress | None, title: str, total: int | None) -> None:
        self._progress = progress
        self._title = title
        self._total = total
        self._done = 0
        self._task = progress.add_task(title, total=total) if progress is not None else None

    def advance(self, by: int = 1) -> None:
        """Count ``by`` more units as done."""
        before, self._done = self._done, self._done + by
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, by)
        elif self._total and self._tenth(before) != self._tenth(self._done):
            note(f"{self._title}: {self._done}/{self._total}")

    def _tenth(self, done: int) -> int:
        assert self._total
        return 10 * done // self._total


class LiveProgress(Progress):
    """Bars, and under them a line of numbers: beside them it would squeeze them out of sight.

    Attributes:
        numbers: what to show under the bars; empty for nothing.
    """

    numbers = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, then the numbers, on as many lines as they need."""
        yield self.make_tasks_table(self.tasks)
        if self.numbers:
            yield Text(self.numbers)

    def stop(self) -> None:
        """Leave the bars as they stand; work that outlived its terminal ends as any other."""
        leave_lost_terminal()
        super().stop()


def live_progress() -> LiveProgress:
    """Bars on the terminal: what, how far, elapsed, left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Speed is that of the last minutes: some work comes in lumps that are half a minute apart.
    # Results that are printed meanwhile are put above the bars, but not where they go elsewhere.
    return LiveProgress(
        *columns,
        console=errors,
        speed_estimate_period=300,
        redirect_stdout=console.is_terminal,
    )


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Bar]:
    """A bar for ``total`` units of work, with elapsed and remaining time."""
    if not sys.stderr.isatty():
        yield Bar(None, title, total)
        return
    with live_progress() as progress:
        yield Bar(progress, title, total)


def say(text: str) -> None:
    """One plain line of results."""
    console.print(escape(text), soft_wrap=True)


def heading(title: str, *, results: bool = True) -> None:
    """A line across, in front of results or of work."""
    (console if results else errors).rule(f"[bold]{escape(title)}[/]", align="left")


def note(text: str) -> None:
    """One plain line of progress on standard error; work goes on where nobody can read it."""
    with suppress(OSError):
        _tell(text)


def warn(text: str) -> None:
    """One warning line on standard error; work goes on where nobody can read it."""
    with suppress(OSError):
        _tell(text, "warning:", "yellow")


def fail(text: str) -> None:
    """One error line on standard error."""
    _tell(text, "error:", "bold red")


def _tell(text: str, label: str = "", style: str = "") -> None:
    """A line on standard error; on a terminal broken between words, and long paths stay whole."""
    whole = f"{label} {text}" if label else text
    if errors.is_terminal:
        wrapper = TextWrapper(errors.width, break_long_words=False, break_on_hyphens=False)
        whole = "\n".join("\n".join(wrapper.wrap(line)) for line in whole.split("\n"))
    told = Text(whole)
    told.stylize(style, 0, len(label))
    errors.print(told, soft_wrap=True)


def paragraph(text: str) -> None:
    """Sentences of output: on a terminal lines end between words, elsewhere where ``text`` ends."""
    console.print(escape(text), soft_wrap=not console.is_terminal)


def say_json(value: object) -> None:
    """Results as JSON; names that are no text as escapes."""
    print(json.dumps(value, indent=2))


def show(table: Table) -> None:
    """A table on standard output, of which no cell is ever cut."""
    print_table(console, table)
