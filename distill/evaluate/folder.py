"""The files of a report.

FOLDER/
  report.json   every number, the settings, versions and counts
  report.png    ROC curves, and bars for each kind of probe
"""

from __future__ import annotations

from pathlib import Path

from distill.data.saving import disk_errors
from distill.evaluate.report import Report, write_json

JSON_NAME, PICTURE_NAME = "report.json", "report.png"


def write_report(report: Report, folder: Path) -> None:
    """Write ``report`` into ``folder``, created if need be; called by one rank.

    Raises:
        UserError: the folder cannot be written.
    """
    from distill.evaluate.picture import write_picture  # matplotlib is slow to import

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(report, folder / JSON_NAME)
    write_picture(report, folder / PICTURE_NAME)
