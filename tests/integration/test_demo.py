"""The demo with three people and a few steps: everything a visitor is shown, and its reuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rank_processes import python

pytestmark = pytest.mark.slow


def demo(out: Path, *options: str) -> str:
    words = ["demo", "--out", str(out), "--people", "3", *options, "train.steps=3"]
    done = python("-m", "distill", *words, "evaluate.every_steps=0", "monitor.images=false")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a demo") / "out"


@pytest.fixture(scope="module")
def shown(out: Path) -> str:
    """By one rank, of which each arm needs a process of its own: DeepSpeed trains once in one."""
    return demo(out, "--ranks", "1")


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


def test_every_number_of_a_run_is_in_the_documents(shown: str, out: Path) -> None:
    """And what the documents list of training is written, but for what only GPUs have."""
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    listed = set(re.findall(r"`([\w./]+)`", " ".join(cells)))
    folders = [Path(arm["run"]) for arm in json.loads((out / "report.json").read_text())["arms"]]
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in folders]
    written = {key for some in lines for line in some for key in json.loads(line)}
    evaluated = {key for key in written if key.startswith("evaluation_")}
    metrics = {key.split("/", 1)[1] for key in evaluated}
    assert {"top1", "agreement", "auc"} <= metrics <= listed
    assert {key.split("/")[0] for key in evaluated} > {"evaluation_clean", "evaluation_processed"}
    training = {key for key in listed if "/" in key or key == "step"}
    assert training - {"memory/cuda_peak_bytes"} == written - evaluated


def test_the_pictures_can_be_looked_at(shown: str, out: Path) -> None:
    for picture in (out / "report.png", out / "packs" / "train" / "contact_sheet.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 20


def test_photographs_are_named_and_the_empty_one_says_so(shown: str) -> None:
    assert "no face" in shown
    assert shown.count("P001_") >= 1


def test_a_second_run_reuses_everything(shown: str, out: Path) -> None:
    """On two ranks, as typed; the runs of one are theirs."""
    again = demo(out)
    assert "up to date" in again
    assert again.count("already complete") == 3
    assert "aligning faces" not in again


CHECKS = """
z, w = (network(x).double() for x in both.chunk(2))
p, q = (x.div(3.0).log_softmax(1) for x in (z, w))
kl = 9.0 * 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(1).mean()
ce = torch.nn.functional.cross_entropy
total = ce(z, labels) + ce(w, labels) + 0.5 * kl
expected = torch.autograd.grad(total, network.weight)[0]
torch.testing.assert_close(network.weight.grad, expected, rtol=1e-4, atol=1e-6)

unit = torch.nn.functional.normalize
cosines = unit(embeddings.detach().double(), dim=2) @ unit(centres.detach().double()).T
right = torch.nn.functional.one_hot(labels, 20_000).bool()
margined = torch.where(right, (cosines.acos() + 0.5).cos(), cosines)
ces = [ce(64.0 * x, labels) for x in margined]
torch.testing.assert_close(loss.ce_first.double(), ces[0], rtol=1e-4, atol=1e-4)
torch.testing.assert_close(loss.ce_second.double(), ces[1], rtol=1e-4, atol=1e-4)
assert centres.grad.norm() > 0

assert state == (0, 16) and tuple(pixels.shape) == (32, 3, 112, 112)
assert len(found.photographs) == 3 and len(found.unusable) == 1
assert abs(similarities.diagonal() - 1).max() < 1e-5
assert tuple(logits.shape) == (32, 3)
"""


def test_the_documented_parts_do_what_is_said_of_them(
    shown: str, out: Path, tmp_path: Path
) -> None:
    """All blocks of docs/library.md as one program, against formulas in float64."""
    text = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == text.count("```") // 2
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(out)
    done = subprocess.run(
        [sys.executable, "-c", "".join(blocks) + CHECKS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no_face.jpg no face None None" in done.stdout
