"""What progress bars say, by a clock of the test's own."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from distill import console
from distill.cli.evaluate import show_written
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


@pytest.mark.parametrize(
    ("speak", "label"),
    [(console.note, ""), (console.warn, "warning: "), (console.fail, "error: ")],
    ids=["note", "warning", "error"],
)
def test_lines_break_between_words_on_a_terminal_and_nowhere_else(
    monkeypatch, speak, label
) -> None:
    """Names may look like markup or emoji; a path that is longer than the line can be copied."""
    path = "/data/" + "very-long/" * 9 + "[bold]:x:.jpg"
    text = f"tiny, 320 people, 2205 pairs; head: cosine, sharded, plain loss\n  at {path}, a start"
    for is_terminal in (True, False):
        file = io.StringIO()
        made = Console(file=file, force_terminal=is_terminal, color_system=None, width=40)
        monkeypatch.setattr(console, "errors", made)
        speak(text)
        found = file.getvalue()
        assert " ".join(found.split()) == " ".join(f"{label}{text}".split())
        if is_terminal:
            assert all(len(line) <= 40 or line == f"{path}," for line in found.splitlines())
            assert len(found.splitlines()) > 3
        else:
            assert found == f"{label}{text}\n"


def test_the_notes_under_a_report_break_between_words(monkeypatch, tmp_path) -> None:
    file = io.StringIO()
    made = Console(file=file, force_terminal=True, color_system=None, width=40)
    monkeypatch.setattr(console, "console", made)
    note = "accuracy: ten runs of the pairs in order, each by the threshold best on the others"
    show_written(tmp_path / "a", tmp_path / "b", [], [note], as_json=False)
    lines = file.getvalue().splitlines()
    assert [line.strip() for line in lines[:3]] == [
        "accuracy: ten runs of the pairs in",
        "order, each by the threshold best on the",
        "others",
    ]
