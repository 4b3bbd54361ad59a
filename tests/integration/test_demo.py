"""The demo with three people and a few steps: everything a visitor is shown, and its reuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def demo(out: Path) -> str:
    words = ["demo", "--out", str(out), "--people", "3", "train.steps=3", "evaluate.every_steps=0"]
    done = subprocess.run(
        [sys.executable, "-m", "distill", *words, "monitor.images=false"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a demo") / "out"


@pytest.fixture(scope="module")
def shown(out: Path) -> str:
    return demo(out)


def test_the_three_arms_stand_side_by_side(shown: str, out: Path) -> None:
    for word in ("first images alone", "pairs, no similarity", "pairs + similarity", "top-1"):
        assert word in shown
    report = json.loads((out / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == ["first", "pairs", "similarity"]
    for arm in report["arms"]:
        measured = json.loads((Path(arm["run"]) / "report" / "report.json").read_text())
        clean = measured["conditions"][0]["identification"]["top1"]
        assert arm["numbers"]["clean/top1"] == clean
        for kind in ("forehead", "glasses", "eyes", "blur", "pose"):
            assert 0.0 <= arm["numbers"][f"{kind}/agreement"] <= 1.0


def test_the_arms_differ_as_their_titles_say(shown: str, out: Path) -> None:
    lines = {}
    for arm in json.loads((out / "report.json").read_text())["arms"]:
        text = (Path(arm["run"]) / "metrics.jsonl").read_text().splitlines()
        lines[arm["name"]] = next(e for e in map(json.loads, text) if "loss/total" in e)
    assert "loss/ce_second" not in lines["first"]
    assert lines["pairs"]["loss/similarity"] == 0.0
    assert lines["similarity"]["loss/similarity"] > 0.0


def test_the_pictures_can_be_looked_at(shown: str, out: Path) -> None:
    for picture in (out / "report.png", out / "packs" / "train" / "contact_sheet.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 20


def test_photographs_are_named_and_the_empty_one_says_so(shown: str) -> None:
    assert "no face" in shown
    assert shown.count("P001_") >= 1


def test_a_second_run_reuses_everything(shown: str, out: Path) -> None:
    again = demo(out)
    assert "up to date" in again
    assert again.count("already complete") == 3
    assert "aligning faces" not in again
