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


def test_a_checkout_may_be_called_gpu(tmp_path: Path) -> None:
    """What needs a GPU is skipped by its mark: names of folders are keywords of every test too."""
    folder = tmp_path / "gpu"
    (folder / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
    (folder / "torch.py").write_text(  # which takes seconds to import
        "class cuda: is_available = bool\n"
        "def get_num_threads(): return 1\n"
        "def set_num_threads(threads): pass\n"
    )
    (folder / "tests" / "test_one.py").write_text(
        "import pytest\ndef test_anywhere(): pass\n@pytest.mark.gpu\ndef test_on_a_gpu(): pass\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert "1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
