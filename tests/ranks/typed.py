"""A command as it is typed, in the process of the test; no test itself."""

from __future__ import annotations

import sys

import pytest

from distill.cli.app import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int | str, str, str]:
    """Exit status, standard output and standard error of one command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pairdistill", *map(str, words)])
        patch.setenv("COLUMNS", "120")
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err
