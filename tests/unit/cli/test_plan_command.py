"""`pairdistill plan` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from distill.cli.app import build_app
from distill.errors import UserError
from distill.losses import choice

RUN = """
[model]
name = "tiny"
embedding_dim = 32
[train]
global_batch_pairs = 64
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return path


def plan(run: Path, *words: str) -> Result:
    return CliRunner().invoke(build_app(), ["plan", str(run), *words], env={"COLUMNS": "100"})


def test_the_table_proposes_one(run: Path) -> None:
    done = plan(run, "--identities", "5000", "--ranks", "4", "--sample-rate", "0.5")
    assert done.exit_code == 0, done.exception
    assert "5000 identities, fp32, sgd: 64 pairs a step on 4 ranks, 16 each" in done.stdout
    assert done.stdout.count("take this") == 1
    assert "sharded 0.5" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_json_has_parts_that_add_up(run: Path) -> None:
    done = plan(run, "--identities", "5000", "--json")
    found = json.loads(done.stdout)
    assert found["predicted"] is True and found["best"] is not None
    for row in found["choices"]:
        totals = {phase: sum(parts.values()) for phase, parts in row["bytes"].items()}
        assert max(totals.values()) == row["peak_bytes"] == totals[row["peak_phase"]]


def test_a_gpu_may_be_described(run: Path) -> None:
    slow, fast = (
        json.loads(plan(run, "--identities", "5000", "--json", "--tflops", tflops).stdout)
        for tflops in ("1", "10")
    )
    for one, other in zip(slow["choices"], fast["choices"], strict=True):
        assert one["seconds"]["arithmetic"] == pytest.approx(10 * other["seconds"]["arithmetic"])


def test_what_does_not_fit_is_an_error(run: Path) -> None:
    done = plan(run, "--identities", "5000", "--gpu-gib", "0.1", "--headroom", "0.9")
    assert isinstance(done.exception, UserError)
    assert "nothing fits" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "data.train is empty: the number of identities is not known"),
        (("data.train=no/such",), "data.train = 'no/such': no such folder"),
        (("--identities", "9", "--gpu", "z9"), "--gpu z9: not known"),
        (("--identities", "9", "--ranks", "3"), "not divisible by 3 ranks"),
        (("--identities", "9", "tarin.steps=1"), "unknown key tarin"),
    ],
)
def test_mistakes(run: Path, words: tuple[str, ...], message: str) -> None:
    done = plan(run, *words)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)


def test_it_says_so_where_the_loss_will_be_plain_torch_on_gpus(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a login node without nvcc, where torch is built for CUDA."""
    monkeypatch.setattr(choice, "native_devices", lambda: ("cpu",))
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    words = "--identities", "5000", "--json", "run.seed=77"  # costs are kept by settings
    (note,) = json.loads(plan(run, *words).stdout)["notes"]
    assert note.startswith("loss.implementation = 'auto': plain torch on GPUs")


def test_with_a_compiled_network_it_says_what_the_figures_are_of(run: Path) -> None:
    """And offers no stage that training would refuse."""
    words = (run, "model.compile=true", "--identities", "5000")
    line = "model.compile: memory and time are those of the network without it"
    assert line in plan(*words).stdout
    compiled, plain = (
        json.loads(plan(*asked, "--json").stdout)
        for asked in (words, (run, "--identities", "5000"))
    )
    assert (compiled["notes"], plain["notes"]) == ([line], [])
    usual = [row for row in plain["choices"] if "train.zero_stage=3" not in row["settings"]]
    assert len(usual) < len(plain["choices"])
    assert compiled["choices"] == usual


def test_what_sharded_heads_alone_can_do_is_planned_with_them(run: Path) -> None:
    words = "--identities", "5000", "--json", "head.placement=sharded", "optimizer.clip_head=false"
    done = plan(run, *words)
    assert done.exit_code == 0, done.exception
    settings = [row["settings"] for row in json.loads(done.stdout)["choices"]]
    assert settings and all("head.placement=sharded" in one for one in settings)


def test_what_no_choice_can_do_is_refused_as_training_does(run: Path) -> None:
    rbf = "loss.similarity=mmd", "loss.mmd_kernel=rbf", "optimizer.clip_head=false"
    done = plan(run, "--identities", "5000", "head.placement=sharded", *rbf)
    assert isinstance(done.exception, UserError)
    assert "loss.mmd_kernel = 'rbf' with head.placement = 'sharded'" in str(done.exception)


def test_a_batch_of_first_images_is_called_so(run: Path) -> None:
    """A step of 1024 of them, as a migrated configuration asks for, has no pairs."""
    done = plan(run, "--identities", "5000", "--ranks", "4", "train.images=first")
    assert "sgd: 64 images a step on 4 ranks, 16 each" in done.stdout
