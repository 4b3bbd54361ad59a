"""The terminal of a training: bars that can be read at any width, plain lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from distill import console
from distill.monitor.terminal import SETS, Terminal, held_out, summary, verified

NUMBERS = {
    "loss/total": 4.4665,
    "loss/ce_first": 1.2931,
    "loss/ce_second": 1.7238,
    "loss/similarity": 1.4496,
    "accuracy/first": 0.5,
    "schedule/lr": 0.0907,
    "speed/images_per_second": 17100.0,
}


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_bar_and_numbers_are_whole_at_any_width(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    screen = io.StringIO()
    shown = Console(file=screen, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "errors", shown)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    terminal = Terminal(resumed_step=0, total_steps=12000)
    terminal.step(345)
    terminal.numbers(345, NUMBERS)
    with terminal.part("evaluate", 400) as advance:
        advance(53)
        screen.truncate(0)
        terminal._bar.refresh()  # type: ignore[union-attr]
        text = screen.getvalue()
    terminal.close()
    assert "…" not in text
    assert "345/12000" in text
    assert "53/400" in text
    words = summary(NUMBERS).split()
    assert [word for word in words if word not in text.split()] == []


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(resumed_step=10, total_steps=20)
    for step in (11, 12):
        terminal.step(step)
    terminal.numbers(12, NUMBERS)
    terminal.close()
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("step 12/20  loss 4.4665  ce 1.2931  ce2 1.7238  sim 1.4496  acc 0.500")
    assert line.endswith("images/s 17100  left 0:00:00\n")


def test_waiting_for_pairs_is_told_where_it_matters() -> None:
    share = "speed/data_wait_share"
    assert summary(NUMBERS | {share: 0.347}) == f"{summary(NUMBERS)}  waiting 35% for pairs"
    assert summary(NUMBERS | {share: 0.1}) == summary(NUMBERS)


def test_an_evaluation_is_told_in_a_line() -> None:
    known = {"clean/top1": 0.75, "clean/auc": 0.9, "blur/top1": 0.5, "processed/top1": 0.5}
    assert held_out(known) == "top-1: clean 0.750 blur 0.500"
    strangers = {"clean/auc": 0.9, "clean/tar_at_far_0.1": 0.2}
    assert held_out(strangers) == "AUC: clean 0.900"
    sets = {"lfw/accuracy": 0.99783, "lfw/auc": 0.99921, "agedb_30/accuracy": 0.98}
    assert held_out(sets, SETS) == "accuracy: lfw 0.99783 agedb_30 0.98000"
    assert held_out({}) == "photographs: too few for any number"


def test_sets_with_an_accuracy_and_others_are_told_in_one_line() -> None:
    pairs = {"lfw/accuracy": 0.99783, "lfw/tar_at_far_0.0001": 0.9, "lfw/auc": 0.99921}
    templates = {"ijbc/tar_at_far_0.0001": 0.96031, "ijbc/auc": 0.999}
    wanted = "accuracy: lfw 0.99783; TAR at FAR 0.01%: ijbc 0.9603"
    assert verified(pairs | templates) == wanted
    assert verified(pairs) == "accuracy: lfw 0.99783"
    assert verified({"few/auc": 0.5}) == "AUC: few 0.50000"
    assert verified({}) == "photographs: too few for any number"
