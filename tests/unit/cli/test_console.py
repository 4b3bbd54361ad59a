"""What progress bars say, by a clock of the test's own."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from distill import console
from distill.console import Bar, live_progress


def shown(
    monkeypatch: pytest.MonkeyPatch, total: int | None, *, done: int, seconds_each: float
) -> str:
    """The line of a bar after some of its work, one unit after the other."""
    now = 1000.0
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=120)
    monkeypatch.setattr(console, "errors", terminal)
    progress = live_progress()
    progress.get_time = lambda: now
    bar = Bar(progress, "aligning faces", total)
    for _ in range(done):
        now += seconds_each
        bar.advance()
    with terminal.capture() as captured:
        terminal.print(progress.make_tasks_table(progress.tasks))
    return captured.get().rstrip()


@pytest.mark.parametrize(("seconds_each", "left"), [(1.0, "0:01:40"), (36.0, "1:00:00")])
def test_the_time_left_is_what_is_left_at_the_speed_so_far(monkeypatch, seconds_each, left) -> None:
    line = shown(monkeypatch, 120, done=20, seconds_each=seconds_each)
    assert re.search(rf"aligning faces .* 20/120 .* left {left}", line)


def test_without_a_total_nothing_is_foretold(monkeypatch) -> None:
    assert re.search(r"20/\? .* left *$", shown(monkeypatch, None, done=20, seconds_each=1.0))
