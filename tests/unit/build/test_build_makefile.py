"""What `make` gives to the programs that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "target", ["bench-loss", "bench-data", "bench-head", "bench-pairs", "bench-audit"]
)
def test_a_benchmark_has_the_options_that_make_gives_it(target: str) -> None:
    """As it is typed, with nothing set."""
    mine = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    bare = {name: value for name, value in mine.items() if not name.endswith("_ARGS")}
    told = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=bare, check=True, capture_output=True, text=True
    )
    _, *words = told.stdout.splitlines()[-1].split()
    options = [word for word in words if word.startswith("--")]
    program = [sys.executable, *words[: words.index(options[0])], "--help"]
    known = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not [option for option in options if option not in known]


def test_tests_of_a_gpu_are_an_error_without_one() -> None:
    """Not a list of skips that looks like a success."""
    mine = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    told = subprocess.run(
        ["make", "-n", "test-gpu"], cwd=ROOT, env=mine, check=True, capture_output=True, text=True
    )
    setting, _, *words = told.stdout.splitlines()[-1].split()
    name, value = setting.split("=")
    hidden = {**mine, name: value, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=hidden, capture_output=True, text=True
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "sees no CUDA device: check `nvidia-smi`" in done.stderr + done.stdout
