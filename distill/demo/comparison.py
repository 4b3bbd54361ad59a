"""The three arms side by side: a table, and the same numbers as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import HORIZONTALS
from rich.table import Table

from distill.demo.arms import ARMS, Arm

Numbers = dict[str, float]
"""Scalars of an evaluation: ``clean/top1``, ``blur/agreement``, ``glasses/eer``."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        key: scalar of the evaluation.
        title: what the reader sees.
        higher_is_better: decides which column is set in bold.
    """

    key: str
    title: str
    higher_is_better: bool = True


def rows(kinds: list[str]) -> list[tuple[str, list[Row]]]:
    """Groups of rows: identification, agreement and verification, clean and for each kind."""
    probes = ["clean", *kinds]
    return [
        ("identified, top-1", [Row(f"{p}/top1", p) for p in probes]),
        ("same answer as clean", [Row(f"{k}/agreement", k) for k in kinds]),
        ("verified, AUC", [Row(f"{p}/auc", p) for p in probes]),
        ("verified, equal error rate", [Row(f"{p}/eer", p, False) for p in probes]),
    ]


def comparison_table(results: dict[str, Numbers], kinds: list[str], photographs: int) -> Table:
    """The arms as columns; the best number of a row in bold.

    Args:
        results: scalars of each arm's evaluation, by the arm's name.
        kinds: second-image kinds of the held-out pack.
        photographs: held-out photographs.
    """
    table = Table(
        title=f"{photographs} held-out photographs, clean and processed in each way",
        caption="The best of a row in bold. One run of each arm: small differences mean nothing;\n"
        "docs/pairs.md has means over seeds.",
        title_justify="left",
        caption_justify="left",
        box=HORIZONTALS,
    )
    table.add_column(no_wrap=True)
    for arm in ARMS:
        table.add_column(arm.title, justify="right", width=14)
    for title, group in rows(kinds):
        table.add_row(f"[italic]{title}[/]")
        for row in group:
            table.add_row(f"  {row.title}", *_cells(row, results))
        table.add_section()
    return table


def _cells(row: Row, results: dict[str, Numbers]) -> list[str]:
    values = [results[arm.name].get(row.key) for arm in ARMS]
    known = [round(value, 3) for value in values if value is not None]
    best = (max if row.higher_is_better else min)(known, default=None)
    return [_cell(value, best) for value in values]


def _cell(value: float | None, best: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:.3f}"
    return f"[bold]{text}[/]" if round(value, 3) == best else text


def comparison_json(
    results: dict[str, Numbers], runs: dict[str, Path], facts: dict[str, Any]
) -> bytes:
    """The numbers of all arms, where their runs are, and ``facts`` about the machine."""
    arms = [_arm_entry(arm, results[arm.name], runs[arm.name]) for arm in ARMS]
    return (json.dumps({"arms": arms, **facts}, indent=2, ensure_ascii=False) + "\n").encode()


def _arm_entry(arm: Arm, numbers: Numbers, run: Path) -> dict[str, Any]:
    entry = {"name": arm.name, "title": arm.title, "overrides": list(arm.overrides)}
    return {**entry, "run": str(run), "numbers": numbers}
