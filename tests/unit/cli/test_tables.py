"""Tables at any width: every name and figure is there, whole."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distill.config import load_config
from distill.planner import show as planner_tables
from distill.planner.choose import compare
from distill.planner.clock import Machine
from distill.planner.gpus import GPUS
from distill.tables import print_table
from launcher.commands.status import table as status_table
from launcher.status import RunStatus

LONG = "runs/webface42m-iresnet100-arcface-0.5-temperature-3"


def printed(table: Table, width: int, *, terminal: bool = True) -> str:
    out = Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=width)
    print_table(out, table)
    return out.file.getvalue()


def words_of(table: Table) -> list[str]:
    cells = [cell for column in table.columns for cell in (column.header, *column.cells)]
    texts = [cell.plain if isinstance(cell, Text) else str(cell) for cell in cells]
    return [word for text in texts for word in text.split()]


WORD = st.text("abcdefgh0123456789/._-é漢", min_size=1, max_size=25)
CELL = st.one_of(st.just(""), st.lists(WORD, min_size=1, max_size=4).map(" ".join))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=2, max_size=5)
    ),
    st.integers(20, 120),
    st.booleans(),
)
def test_no_word_is_ever_cut(rows: list[list[str]], width: int, framed: bool) -> None:
    table = Table(pad_edge=framed) if framed else Table(box=None, pad_edge=False)
    for title in rows[0]:
        table.add_column(title)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    shown = printed(table, width)
    words = [word for row in rows[1:] for cell in row for word in cell.split()]
    bare = re.sub(r"[━─│┃┏┓┗┛┡┩┳┻╇╈└┘┴]", " ", shown).split()
    assert [word for word in words if word not in bare] == []
    assert "…" not in shown


def status(run: str, **changes: object) -> RunStatus:
    known = {
        "run": run,
        "job": "1234568_12",
        "state": "RUNNING",
        "reason": "",
        "nodes": "",
        "step": 123456,
        "total_steps": 1000000,
        "loss": 12.345678,
        "losses": {},
        "images_per_second": 17100.0,
        "eta_seconds": 180000.0,
        "checkpoints": [120000],
        "starts": 12,
    }
    return RunStatus(**{**known, **changes})


def the_status() -> Table:
    ended = status("runs/öğrenme", state="ENDED", reason="rank 3 on node17 was killed by SIGKILL")
    return status_table([status(LONG), ended])


def the_plan() -> Table:
    config = load_config(None, ["model.name=tiny", "train.global_batch_pairs=64"])
    machine = Machine(GPUS["h100"])
    return planner_tables.comparison_table(compare(config, 2_000_000, machine, 8, (0.1,)))


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("made", [the_status, the_plan])
def test_status_and_plan_can_be_read_at_any_width(made, width: int) -> None:
    table = made()
    shown = printed(table, width)
    missing = set(words_of(table)) - set(shown.split())
    assert missing == set()
    assert max(map(len, shown.splitlines())) <= width


def test_plan_has_its_columns_on_a_terminal_of_80() -> None:
    table = the_plan()
    assert len(printed(table, 80).splitlines()) == 2 + table.row_count


def test_a_row_without_room_is_a_few_lines_with_titles() -> None:
    first, second, *_ = printed(the_status(), 60).splitlines()
    assert first == f"run {LONG}"
    assert second == "  job 1234568_12  state RUNNING  step 123456/1000000"


def test_a_piped_table_is_as_wide_as_it_is() -> None:
    table = the_status()
    (line,) = [x for x in printed(table, 40, terminal=False).splitlines() if LONG in x]
    assert line.split() == [LONG, "1234568_12", "RUNNING", "123456/1000000", "12.35", "17100",
                            "2d", "2h", "120000", "12"]  # fmt: skip
