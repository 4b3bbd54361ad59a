"""That a run of all tests has all of them: a folder that is passed over fails nowhere.

Not in tests/unit/build, which pytest passes over unless it is told otherwise.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_with_tests_is_collected(tmp_path: Path) -> None:
    """pytest itself, with our settings, over a tree of the same names and one empty test each."""
    files = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "tests").rglob("*.py")
        if any(line.startswith("def test_") for line in file.read_text().splitlines())
    }
    assert str(Path(__file__).relative_to(ROOT)) in files
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in files:
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("def test_nothing(): pass\n")
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert {line.split("::")[0] for line in found.splitlines() if "::" in line} == files
