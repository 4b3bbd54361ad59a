"""The commands that are told where a package of an extra is missing, and what they bring."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from distill import extras
from distill.extras import how_to_install

ROOT = Path(__file__).resolve().parents[3]
PINNED = f"pip install -c {shlex.quote(str(ROOT / 'constraints.txt'))}"


def test_in_the_repository_packages_come_in_their_tested_versions() -> None:
    assert how_to_install("onnx") == f"{PINNED} onnx onnxscript onnxruntime"
    assert how_to_install("parquet") == f"{PINNED} pyarrow"
    assert how_to_install("demo") == f"{PINNED} openpeople"
    assert how_to_install("timm") == f"{PINNED} timm"


def test_elsewhere_within_their_bounds_and_with_the_torch_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "CONSTRAINTS", tmp_path / "constraints.txt")
    for extra, wanted in project()["optional-dependencies"].items():
        if extra != "dev":  # which has markers, and is nobody's advice
            torch = [f"torch=={version('torch')}"] if extra == "timm" else []
            assert shlex.split(how_to_install(extra)) == ["pip", "install", *wanted, *torch]


def test_what_is_told_brings_nothing_where_all_is_here() -> None:
    """Pip itself; asked for our extra it would bring what FFCV asks for too."""
    wanted = shlex.split(how_to_install("onnx")) + shlex.split(how_to_install("parquet"))[4:]
    argv = [sys.executable, "-m", *wanted, "--dry-run", "--no-index"]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "Would install" not in answer.stdout


def test_nobody_is_told_to_install_our_extras() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[dl]*/**/*.py")]
    telling = re.compile(r"pip install .?pairdistill\[")
    allowed = {ROOT / "CHANGELOG.md", ROOT / "docs/log.md", ROOT / "distill/extras.py"}
    found = [file for file in files if file not in allowed and telling.search(file.read_text())]
    assert len(files) > 300 and found == []


def project() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]
