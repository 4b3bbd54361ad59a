"""What `make` gives to the programs that it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rank_processes import python

ROOT = Path(__file__).resolve().parents[3]


def commanded(target: str, environment: dict[str, str]) -> list[str]:
    """The words of a target's last command."""
    asked = ["make", "-n", target]
    told = subprocess.run(
        asked, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return told.stdout.splitlines()[-1].split()


def without_make() -> dict[str, str]:
    """This environment, less what a `make` around it has set."""
    return {name: value for name, value in os.environ.items() if "MAKE" not in name}


@pytest.mark.parametrize(
    "target", ["bench-loss", "bench-data", "bench-head", "bench-pairs", "bench-audit"]
)
def test_a_benchmark_has_the_options_that_make_gives_it(target: str) -> None:
    """As it is typed, with nothing set."""
    bare = {name: value for name, value in without_make().items() if not name.endswith("_ARGS")}
    _, *words = commanded(target, bare)
    options = [word for word in words if word.startswith("--")]
    program = words[: words.index(options[0])]
    if program[0].endswith(".py"):
        program[0] = str(ROOT / program[0])
    asked = python(*program, "--help")
    assert asked.returncode == 0, asked.stderr
    assert not [option for option in options if option not in asked.stdout]


def test_tests_of_a_gpu_are_an_error_without_one() -> None:
    """Not a list of skips that looks like a success."""
    mine = without_make()
    setting, _, *words = commanded("test-gpu", mine)
    name, value = setting.split("=")
    hidden = {**mine, name: value, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=hidden, capture_output=True, text=True
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "sees no CUDA device: check `nvidia-smi`" in done.stderr + done.stdout


def test_a_file_that_cannot_be_imported_ends_the_tests_at_once(tmp_path: Path) -> None:
    """Before the first of them, though two workers run them."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    # In place of torch, which each process would import for seconds.
    torch = "class cuda:\n    is_available = bool\nget_num_threads = set_num_threads = int\n"
    (tmp_path / "torch.py").write_text(torch)
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    (tmp_path / "test_good.py").write_text("def test_good(): open('ran', 'w')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow gpu\n")
    bare = {name: value for name, value in without_make().items() if name != "PYTEST_ARGS"}
    _, *words = commanded("test", bare)
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=bare, capture_output=True, text=True
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "No module named 'no_such_module'" in done.stdout
    assert "Interrupted: errors during collection: 1" in done.stdout
    assert not (tmp_path / "ran").exists()
