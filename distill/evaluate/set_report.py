"""What was measured on verification sets, as a table, a file and a picture.

FOLDER/
  sets.json   every number, the settings and versions
  sets.png    ROC curves
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from distill.evaluate.report import as_json, condition_scalars, of_step, versions
from distill.evaluate.search import FPIRS, RANKS, GalleryResult, SearchResult
from distill.evaluate.sets import AnyResult, SetResult
from distill.evaluate.table import NONE, far_columns, percent, shown_fars
from distill.evaluate.templates import TEMPLATE_FARS, TemplateResult
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

    sets: list[AnyResult]
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


def set_scalars(results: Sequence[AnyResult]) -> dict[str, float]:
    """The results as flat numbers: ``lfw/accuracy``, ``lfw/auc``; what is None is left out."""
    return {
        f"{result.name}/{name}": value
        for result in results
        for name, value in (*condition_scalars(result.condition), *_searched(result))
    }


def _searched(result: AnyResult) -> Iterable[tuple[str, float]]:
    if isinstance(result, TemplateResult) and result.search:
        return result.search.scalars.items()
    return ()


def set_tables(report: SetReport) -> list[Table]:
    """What was measured, a table for each form of sets, under one heading."""
    pairs = [result for result in report.sets if isinstance(result, SetResult)]
    templates = [result for result in report.sets if isinstance(result, TemplateResult)]
    tables = [set_table(pairs)] if pairs else []
    if templates:
        tables.append(template_table(templates))
    searched = [(each.name, each.search) for each in templates if each.search]
    if searched:
        tables.append(search_table(searched))
    tables[0].title = report.heading
    return tables


def set_table(results: Sequence[SetResult]) -> Table:
    """A row for each set of pairs; percentages but for the AUC and the length."""
    fars = shown_fars([result.verification for result in results])
    table = _table(
        "set", "pairs", "accuracy\n%", "AUC", "EER\n%", *far_columns(fars), "mean\nlength"
    )
    for result in results:
        table.add_row(result.name, str(result.pairs), *_cells(result, fars))
    return table


def template_table(results: Sequence[TemplateResult]) -> Table:
    """A row for each set of templates, with TAR in percent at each FAR."""
    titles = [f"TAR %\n@{float(far):.0e}".replace("e-0", "e-") for far in TEMPLATE_FARS[::-1]]
    table = _table("set", "pairs of\ntemplates", "AUC", *titles)
    for result in results:
        found = result.verification
        area = NONE if found.auc is None else f"{found.auc:.4f}"
        tars = (percent(found.tar_at_far[far], digits=2) for far in TEMPLATE_FARS[::-1])
        table.add_row(result.name, str(result.pairs), area, *tars)
    return table


def search_table(searched: Sequence[tuple[str, SearchResult]]) -> Table:
    """Rows for each gallery, and one for all of a set; percentages."""
    shares = [f"TPIR %\n@FPIR {100 * float(fpir):g}%" for fpir in FPIRS]
    table = _table("gallery", "people", "searches", *(f"rank-{k}\n%" for k in RANKS), *shares)
    for name, found in searched:
        for each in found.galleries:
            counts = str(each.people), f"{each.mated}+{each.unmated}"
            table.add_row(f"{name} {each.name}", *counts, *_search_cells(each))
        table.add_row(f"{name} both", NONE, NONE, *_search_cells(found))
    return table


def _search_cells(found: GalleryResult | SearchResult) -> list[str]:
    shares = [*found.rank.values(), *found.tpir_at_fpir.values()]
    return [percent(share, digits=2) for share in shares]


def _table(first: str, *titles: str) -> Table:
    table = Table(title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.padding, table.pad_edge = 0, False  # so that all of it fits into 80 columns
    table.add_column(first, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
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
    lines = [f"TAR: pairs of one person accepted at that FAR; {JSON_NAME} says why one is left out"]
    pairs = [result for result in report.sets if isinstance(result, SetResult)]
    if pairs:
        runs = "accuracy: ten runs of the pairs in order (of a pairs.txt its sets)"
        lines.insert(0, f"{runs}, each by the threshold best on the others")
    if len(pairs) < len(report.sets):
        lines.append("templates: TAR at the point of the ROC curve whose FAR is nearest")
    if any(isinstance(result, TemplateResult) and result.search for result in report.sets):
        lines.append("searches: for people of the gallery + for others, whom FPIR is about")
    for result in pairs:
        missing = result.verification.reasons.items()
        lines += [f"{result.name}: {name}: {why}" for name, why in missing if "tar" not in name]
        if result.not_found:
            lines.append(f"{result.name}: no face in {result.not_found} photographs: middle taken")
    return lines
