"""What `submit` and `sweep` refuse of settings: what the ranks would, before there is a job."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import simplejpeg
import torch
from fake_slurm import FakeSlurm
from submitting import pairdistill, run_of, submit, sweep

import launcher
from distill import inputs, plan
from distill.config import load_config
from distill.data.manifest import read_pack
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError
from distill.models.classifier import build_for_training
from distill.plan import make_plan
from distill.ranks import Ranks
from distill.run_dir import RunDir

ONE = Ranks(0, 1, 0, 1, torch.device("cpu"))
METRIC = 'evaluate.sets=["lfw.bin"]', "checkpoint.best_metric=lfw/accurcy"


REFUSED = [
    ("data.train", ['data.train=["train", "nowhere"]']), ("data.train", ["data.train="]),
    ("data.train", ["data.train=train/pairs-00000.beton"]),
    ("broken/manifest.json", ["data.train=broken"]), ("--layout", ["data.second=online"]),
    ("data.evaluation", ["data.evaluation=nowhere"]), ("data.exclude", ["data.exclude=nowhere"]),
    ("data.evaluation", ["data.evaluation=train"]), ("evaluate.sets", ["evaluate.sets=nowhere"]),
    ("model.name", ["model.name=iresnet51"]), ("model.init_from", ["model.init_from=nowhere"]),
    ("head.margin", ["head.kind=linear", "head.margin=arcface"]),
    ("head.sample_rate", ["head.sample_rate=0.2"]), ("checkpoint.best_metric", METRIC),
    ("train.precision", ["train.precision=fp16"]), ("batch", ["train.global_batch_pairs=20"]),
    ("model.compile", ["model.compile=true", "train.zero_stage=3"]),
]  # fmt: skip


@pytest.fixture
def folder(config: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Beside the settings: a second pack, a set, a list of photographs to leave out; work there."""
    fake.cluster()
    root = config.parent
    pack = read_pack(root / "train")
    image = simplejpeg.encode_jpeg(
        torch.zeros(112, 112, 3, dtype=torch.uint8).numpy(), colorsubsampling="444"
    )
    pairs = (EncodedPair(image, image, i % 2, 0) for i in range(4))
    write_pack(root / "more", pairs, 4, identities=["c", "d"], kinds=("blur",))
    (root / "lfw.bin").write_bytes(pickle.dumps(([image] * 8, [True, False] * 2)))
    line = f"{pack.manifest.digest[:16]},0,,a"
    (root / "audit.csv").write_text(f"pack,pair,also,identity\n{line}\n")
    (root / "broken").mkdir()
    (root / "broken" / "manifest.json").write_text("{}")
    monkeypatch.chdir(root)
    return root


def test_all_that_is_read_is_looked_for_and_named_absolutely(folder: Path) -> None:
    words = ['data.train=["train", "more"]', "evaluate.sets=lfw.bin", "data.exclude=audit.csv"]
    submit(folder / "run.toml", *words)
    (job,) = run_of(folder / "run.toml").jobs()
    told = load_config(job.config_toml)
    assert told.data.train_packs == [str(folder / "train"), str(folder / "more")]
    assert told.evaluate.set_paths == [str(folder / "lfw.bin")]
    assert told.data.exclude_lists == [str(folder / "audit.csv")]


@pytest.mark.parametrize(("field", "words"), REFUSED)
def test_what_training_refuses_is_not_submitted(
    folder: Path, fake: FakeSlurm, field: str, words: list[str]
) -> None:
    """In the words of training, whose ranks would tell them after days in a queue."""
    toml = folder / "run.toml"
    with pytest.raises(UserError) as there:
        settings = load_config(toml, words)
        planned = make_plan(settings, ONE)
        build_for_training(settings, len(planned.classes), ONE)
    with pytest.raises(UserError) as here:
        submit(toml, *words)
    assert field in str(here.value)
    assert str(here.value).replace(f"{folder}/", "") == str(there.value).replace(f"{folder}/", "")
    with pytest.raises(UserError):
        sweep(toml, ["loss.weight=1,2", *words], folder=folder / "sweep")
    assert not fake.calls("sbatch")
    assert not (folder / "runs").exists()
    assert not (folder / "sweep").exists()


def test_ranks_are_those_of_the_job(folder: Path) -> None:
    """Two people cannot be shared out among three ranks."""
    words = "head.placement=sharded", "train.global_batch_pairs=6"
    with pytest.raises(UserError, match="2 identities over 3 ranks would leave 1"):
        submit(folder / "run.toml", *words, ranks_per_node=3)
    submit(folder / "run.toml", *words, ranks_per_node=2)


def test_weights_that_the_job_before_trains_are_not_asked_for(
    folder: Path, fake: FakeSlurm
) -> None:
    """They are not there yet; what else is wrong is still refused."""
    fake.answers("sacct", "11|RUNNING|None|node1|\n")
    words = "model.init_from=runs/first", "run.dir=runs/second"
    with pytest.raises(UserError, match=r"model\.name = 'tinier'"):
        submit(folder / "run.toml", *words, "model.name=tinier", after="11")
    submit(folder / "run.toml", *words, after="11")
    assert fake.calls("sbatch")


def test_a_network_that_only_the_python_of_the_ranks_may_know(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a container may have timm, or a newer one, where this one has none."""
    (folder / "sites").mkdir()
    (folder / "sites" / "boxed.toml").write_text('python = "/opt/venv/bin/python"\n')
    monkeypatch.setenv("PAIRDISTILL_SITES", str(folder / "sites"))
    word = "model.name=timm:resnet_of_next_year"
    with pytest.raises(UserError, match=r"model\.name = 'timm:resnet_of_next_year': timm "):
        submit(folder / "run.toml", word)
    submit(folder / "run.toml", word, site="boxed")


@pytest.mark.parametrize("begin", [submit, sweep])
def test_of_two_that_are_submitted_at_once_one_is_refused(
    folder: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, begin: Callable[..., None]
) -> None:
    """The other one comes while packs are read, which takes minutes where they are large."""
    words = ["run.seed=1"] if begin is submit else [["run.seed=1"]]
    options = {} if begin is submit else {"folder": folder / "sweep"}
    plan_check = plan.check_elsewhere

    def interrupted(*settings: object) -> None:
        plan_check(*settings)
        monkeypatch.setattr(plan, "check_elsewhere", plan_check)
        if not fake.calls("sbatch"):
            begin(folder / "run.toml", *words, **options)

    monkeypatch.setattr(plan, "check_elsewhere", interrupted)
    with pytest.raises(UserError, match=r"there is a run already|'.*sweep': is there already"):
        begin(folder / "run.toml", *words, **options)
    assert len(list(folder.rglob("*_submission.sh"))) == 1
    owner = run_of(folder / "run.toml") if begin is submit else RunDir(folder / "sweep")
    assert len(owner.jobs()) == 1


@pytest.mark.parametrize(
    "fails",
    ["OSError('libcudart.so.13: cannot open shared object file')", "ImportError('no torch')"],
)
def test_where_torch_cannot_be_loaded_the_ranks_are_left_to_check(
    folder: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """As on a login node that has no CUDA; said once, for all runs."""
    (folder / "path" / "torch").mkdir(parents=True)
    (folder / "path" / "torch" / "__init__.py").write_text(f"raise {fails}\n")
    monkeypatch.setenv(
        "PYTHONPATH", f"{folder / 'path'}{os.pathsep}{Path(launcher.__path__[0]).parent}"
    )
    done = pairdistill("sweep", "run.toml", "run.seed=1,2", "--dir", "sweep")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    reason = fails.split("'")[1]
    warning = f"warning: the settings are not checked here ({reason}); the ranks will check them"
    assert said.count(warning) == said.count("warning") == 1
    assert len(RunDir(folder / "sweep").jobs()) == 1
    assert fake.calls("sbatch")


def test_what_runs_of_a_sweep_read_alike_is_read_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever varies fastest; large packs take seconds each."""
    read: list[str] = []
    pack_of, sets_of = inputs.read_pack, inputs.read_sets
    monkeypatch.setattr(inputs, "read_pack", lambda where: read.append(where) or pack_of(where))
    monkeypatch.setattr(inputs, "read_sets", lambda paths: read.append("sets") or sets_of(paths))
    packs = "data.train=train,more"
    words = ["run.seed=1,2,3", "evaluate.sets=lfw.bin", packs]
    sweep(folder / "run.toml", words, folder=folder / "sweep")
    assert sorted(read) == [str(folder / "more"), str(folder / "train"), "sets"]
    assert "checking 6 run(s)" in capsys.readouterr().err  # scripts read the other
    read.clear()
    with pytest.raises(UserError, match="batch"):  # what is cheap is checked of each
        sweep(folder / "run.toml", ["train.global_batch_pairs=4,20"], folder=folder / "other")
    assert read == [str(folder / "train"), "sets"]
