"""What was measured on verification sets, as a table, a file and a picture.

FOLDER/
  sets.json   every number, the settings and versions
  sets.png    ROC curves
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from distill.evaluate.report import as_json, condition_scalars, of_step, versions
from distill.evaluate.sets import SetResult
from distill.evaluate.table import NONE, far_columns, percent, shown_fars
from distill.files import make_folder, write_together

FORMAT = 1
JSON_NAME, PICTURE_NAME = "sets.json", "sets.png"


@dataclass(frozen=True)
class SetReport:
    """An evaluation on verification sets.

    Attributes:
        sets: the results, in the order asked for.
        checkpoint, config, ranks, versions: as in `Report`.
    """

    sets: list[SetResult]
    checkpoint: dict[str, Any]
    config: dict[str, Any]
    ranks: int
    versions: dict[str, str] = field(default_factory=versions)
    format: int = FORMAT

    @property
    def heading(self) -> str:
        """One line on what was measured."""
        return f"{of_step(self.checkpoint)}verification, with mirrored images"


def write_set_report(report: SetReport, folder: Path) -> None:
    """Write ``report`` into ``folder``, created if need be; called by one rank.

    Raises:
        UserError: the folder cannot be written; then both files are as they were.
    """
    from distill.evaluate.picture import picture_of_curves  # matplotlib is slow to import

    make_folder(folder)
    drawn = picture_of_curves([result.condition for result in report.sets], report.heading)
    write_together({folder / JSON_NAME: as_json(report), folder / PICTURE_NAME: drawn})


def set_scalars(results: Sequence[SetResult]) -> dict[str, float]:
    """The results as flat numbers: ``lfw/accuracy``, ``lfw/auc``; what is None is left out."""
    return {
        f"{result.name}/{name}": value
        for result in results
        for name, value in condition_scalars(result.condition)
    }


def set_table(report: SetReport) -> Table:
    """A row for each set; percentages but for the AUC and the length."""
    table = Table(title=report.heading, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.padding, table.pad_edge = 0, False  # so that all of it fits into 80 columns
    table.add_column("set", no_wrap=True)
    fars = shown_fars([result.verification for result in report.sets])
    titles = ("pairs", "accuracy\n%", "AUC", "EER\n%", *far_columns(fars), "mean\nlength")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for result in report.sets:
        table.add_row(result.name, str(result.pairs), *_cells(result, fars))
    return table


def _cells(result: SetResult, fars: list[str]) -> list[str]:
    found = result.verification
    return [
        percent(found.accuracy, found.accuracy_std, digits=2),
        NONE if found.auc is None else f"{found.auc:.4f}",
        percent(found.eer, digits=2),
        *(percent(found.tar_at_far[far]) for far in fars),
        f"{result.mean_length:.2f}",
    ]


def set_notes(report: SetReport) -> list[str]:
    """What accuracy and TAR are here, and why other numbers are missing."""
    lines = [
        "accuracy: ten runs of the pairs in order, each by the threshold best on the others",
        f"TAR: pairs of one person accepted at that FAR; {JSON_NAME} says why one is left out",
    ]
    for result in report.sets:
        missing = result.verification.reasons.items()
        lines += [f"{result.name}: {name}: {why}" for name, why in missing if "tar" not in name]
    return lines
