"""The report as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from distill.evaluate.report import Condition, Report, Verification
from distill.evaluate.verify import FARS

NONE = "-"


def report_table(report: Report) -> Table:
    """Conditions as rows; percentages but for the AUC, "-" where a number cannot be had."""
    table = Table(title=report.heading, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.padding, table.pad_edge = 0, False  # so that all of it fits into 80 columns
    table.add_column("probe", no_wrap=True)
    for title in ("top-1\n%", "top-5\n%", "same\n%", "AUC", "EER\n%", "10-fold\n%"):
        table.add_column(title, justify="right", no_wrap=True)
    fars = shown_fars([condition.verification for condition in report.conditions])
    for title in far_columns(fars):
        table.add_column(title, justify="right", no_wrap=True)
    for condition in report.conditions:
        table.add_row(condition.name, *cells(condition, fars))
    return table


def shown_fars(found: Sequence[Verification]) -> list[str]:
    """The FARs that some of these verifications carry."""
    tars = [verification.tar_at_far for verification in found]
    return [far for far in FARS if any(tar.get(far) is not None for tar in tars)]


def far_columns(fars: Sequence[str]) -> list[str]:
    """Titles of the columns of TAR."""
    return [f"TAR %\n@{100 * float(far):g}%" for far in fars]


def cells(condition: Condition, fars: list[str]) -> list[str]:
    """The numbers of one row."""
    named, verified = condition.identification, condition.verification
    return [
        *(percent(getattr(named, name, None)) for name in ("top1", "top5", "agreement")),
        NONE if verified.auc is None else f"{verified.auc:.3f}",
        percent(verified.eer),
        percent(verified.accuracy, verified.accuracy_std),
        *(percent(verified.tar_at_far[far]) for far in fars),
    ]


def percent(value: float | None, spread: float | None = None, digits: int = 1) -> str:
    """``97.1``, or ``97.1 ±0.4``."""
    if value is None:
        return NONE
    return f"{100 * value:.{digits}f}" + ("" if spread is None else f" ±{100 * spread:.{digits}f}")


def notes(report: Report) -> list[str]:
    """How many pairs stand behind the numbers, and why some are missing."""
    clean = report.conditions[0].verification
    lines = [f"clean: {clean.genuine} genuine and {clean.impostor} impostor pairs"]
    if clean.impostor < clean.impostor_total:
        lines[0] += f" (drawn from {clean.impostor_total})"
    if report.conditions[0].identification is None:
        lines.append("top-1, top-5, same: the classifier knows none of these people")
    if shown_fars([condition.verification for condition in report.conditions]):
        lines.append("TAR @1%: pairs of one person accepted where 1% of the others are (FAR)")
    for name, reason in clean.reasons.items():
        lines.append(f"{name.replace('tar_at_far_', 'TAR at FAR ')}: {reason}")
    if not report.pack.get("sources_known"):
        lines.append("the pack has no pairs.csv: images may be compared with their own sources")
    return lines
