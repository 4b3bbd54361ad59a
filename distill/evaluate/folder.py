"""The files of a report.

FOLDER/
  report.json   every number, the settings, versions and counts
  report.png    ROC curves, and bars for each kind of probe
"""

from __future__ import annotations

import json
from pathlib import Path

from distill.errors import UserError
from distill.evaluate.report import FORMAT, Report, as_condition, as_json
from distill.files import make_folder, write_together

JSON_NAME, PICTURE_NAME = "report.json", "report.png"


def write_report(report: Report, folder: Path) -> None:
    """Write ``report`` into ``folder``, created if need be; called by one rank.

    Raises:
        UserError: the folder cannot be written; then both files are as they were.
    """
    from distill.evaluate.picture import picture  # matplotlib is slow to import

    make_folder(folder)
    drawn = picture(report)
    write_together({folder / JSON_NAME: as_json(report), folder / PICTURE_NAME: drawn})


def read_report(folder: Path) -> Report:
    """The report that `write_report` wrote into ``folder``.

    Raises:
        UserError: there is none, or it is damaged or of another version of the program.
    """
    path = folder / JSON_NAME
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']} in place of {FORMAT}")
        found["conditions"] = [as_condition(condition) for condition in found["conditions"]]
        return Report(**found)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", fix="evaluate first") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: no report ({error})", fix="evaluate again") from error
