"""A label out of range stops a GPU with a message; the call itself waits for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("label_script.py")
# What is called, by which implementation, with which label, and the way that scores go on the chip.
CASES = [
    *[
        (what, implementation, label, "")
        for what in ("single_images", "pairs")
        for implementation in ("native", "reference")
        for label in (-2, 37)
    ],
    *[("scores", "reference", label, "") for label in (-2, 37)],
    *[("scores", "native", label, way) for label, way in ((-2, "small"), (37, "split"))],
]
Started = dict[tuple[str, str, int, str], "subprocess.Popen[str]"]


def start(what: str, implementation: str, label: int, way: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "PYTHONPATH": path, "PAIRDISTILL_CUDA_PATH": way}
    env |= {"CUDA_LAUNCH_BLOCKING": "0", "PAIRDISTILL_DEBUG": "0"}  # with either, every call waits
    command = [sys.executable, str(SCRIPT), what, implementation, str(label)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[Started]:
    """One for each case, as each loses its device; all at once, as most of each is its start."""
    started = {case: start(*case) for case in CASES}
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, filter(None, case))))
def test_a_label_out_of_range_stops_the_device(
    case: tuple[str, str, int, str], processes: Started
) -> None:
    stdout, stderr = processes[case].communicate(timeout=300)
    assert stdout == "called\n", stderr
    assert processes[case].returncode != 0
    assert "a label is out of range" in stderr
