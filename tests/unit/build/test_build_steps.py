"""The steps of the set-up: what is shown and kept of them, and what runs beside them."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("steps")


def test_a_failed_step_shows_the_end_and_names_the_log(steps: ModuleType, tmp_path: Path) -> None:
    out = io.StringIO()
    running = steps.Steps(tmp_path / "build" / "setup.log", out)
    running.run("first", [sys.executable, "-c", "print('fine')"])
    code = "import sys; print(*range(40), sep='\\n', flush=True); sys.exit('the cause')"
    with pytest.raises(steps.SetupError, match="the cause") as caught:
        running.run("second", [sys.executable, "-c", code])
    assert len(str(caught.value).splitlines()) <= steps.TAIL_LINES + 2
    assert "fine" not in str(caught.value)
    assert "fine" in running.log.read_text()
    assert str(running.log) in str(caught.value)
    assert re.search(r"first: done in \d+ s", out.getvalue())
    assert "second: FAILED" in out.getvalue()


def test_a_step_runs_beside_others_and_is_waited_for(steps: ModuleType, tmp_path: Path) -> None:
    out = io.StringIO()
    running = steps.Steps(tmp_path / "setup.log", out)
    come = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n"
    at = ["sh", "-c", f'cd "{tmp_path}" && exec "{sys.executable}" -c "{come}"']
    with running.meanwhile("compiling", at):
        running.run("packages", ["touch", str(tmp_path / "go")])  # alone, it would never end
    lines = [line.split(":")[0].strip() for line in out.getvalue().splitlines() if "done" in line]
    assert lines == ["packages", "compiling"]


def test_a_step_that_fails_beside_others_names_its_own_log(
    steps: ModuleType, tmp_path: Path
) -> None:
    running = steps.Steps(tmp_path / "setup.log", io.StringIO())
    fails = [sys.executable, "-c", "import sys; sys.exit('the cause')"]
    with (
        pytest.raises(steps.SetupError, match=r"(?s)the cause.*-meanwhile\.log.*name another"),
        running.meanwhile("compiling", fails, advice="\nname another"),
    ):
        running.run("packages", ["true"])
    assert "packages" not in (tmp_path / "setup-meanwhile.log").read_text()


def test_a_failure_ends_what_runs_beside_it(steps: ModuleType, tmp_path: Path) -> None:
    running = steps.Steps(tmp_path / "setup.log", io.StringIO())
    # A compiler's own children end with it.
    child = [
        "sh",
        "-c",
        f"sleep 600 & echo $! > {tmp_path}/partial; mv {tmp_path}/p* {tmp_path}/x; wait",
    ]
    with (
        pytest.raises(steps.SetupError, match="packages failed"),
        running.meanwhile("compiling", child),
    ):
        while not (tmp_path / "x").exists():
            time.sleep(0.01)
        running.run("packages", ["false"])
    deadline = time.monotonic() + 120
    with contextlib.suppress(psutil.NoSuchProcess):
        child_of_step = psutil.Process(int((tmp_path / "x").read_text()))
        while child_of_step.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the child of the step is still there"
            time.sleep(0.01)
