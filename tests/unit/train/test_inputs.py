"""What a run reads, refused by `plan` and `train` in the same words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distill import console
from distill.cli.plan import identities_of
from distill.config import Config, as_override, load_config
from distill.errors import UserError
from distill.models.classifier import build_classifier
from distill.plan import make_plan
from distill.ranks import Ranks

TWO = Ranks(0, 2, 0, 2, torch.device("cpu"))
BATCH = "train.global_batch_pairs=20"


def config(packs: Path, *overrides: str) -> Config:
    words = [as_override(f"data.{name}", str(packs / name)) for name in ("train", "evaluation")]
    return load_config(None, [*words, "train.global_batch_pairs=6", *overrides])


def test_what_is_measured_may_decide_which_checkpoint_is_best(packs: Path) -> None:
    for words in (["processed/auc"], ["cleen/top1", "checkpoint.keep_best=0"],
                  ["lfw/accuracy", "data.evaluation="]):  # fmt: skip
        make_plan(config(packs, *["checkpoint.best_metric=" + words[0], *words[1:]]), TWO)


@pytest.mark.parametrize(
    ("metric", "words", "said"),
    [
        ("clean/topp1", [], r"will have it; take one of clean/top1, clean/probability, clean/auc$"),
        (
            "blur/top5",
            [],
            r"have it: there are no more than five people to name; take one of blur/",
        ),
        ("processed/tar_at_far_0.0001", [], r"have it: needs 100000 impostor pairs .*are 24; take"),
        ("clean/agreement", [], r"no evaluation of this run will have it; take one of clean/top1"),
        (
            "eyes/top1",
            ["data.evaluation={packs}/strangers"],
            r"training knows none of the people of data",
        ),
    ],
)
def test_what_no_evaluation_can_find_cannot_decide_which_checkpoint_is_best(
    packs: Path, metric: str, words: list[str], said: str
) -> None:
    words = [word.format(packs=packs) for word in words]
    settings = config(packs, f"checkpoint.best_metric={metric}", *words)
    for refused in (lambda: make_plan(settings, TWO), lambda: identities_of(settings)):
        with pytest.raises(UserError, match=rf"^checkpoint\.best_metric = '{metric}': .*{said}"):
            refused()
    make_plan(config(packs, "checkpoint.best_metric=clean/top1", *words), TWO)


def test_the_worst_checkpoint_is_not_kept_as_best(packs: Path) -> None:
    """The largest value is: of error rates that is the worst."""
    with pytest.raises(UserError, match=r"best_metric = 'processed/eer': of equal error rates"):
        make_plan(config(packs, "checkpoint.best_metric=processed/eer"), TWO)
    words = "checkpoint.best_metric=processed/eer", "checkpoint.keep_best=0"
    make_plan(config(packs, *words), TWO)


def test_the_way_to_a_pack_is_that_of_the_pack_that_is_needed(packs: Path) -> None:
    words = "data.train=/no/such", "data.second=online"
    with pytest.raises(UserError, match=r"pack PHOTOGRAPHS OUT --layout singles`"):
        make_plan(config(packs, *words), TWO)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.second=online", "'online' ones are asked for"),
        (BATCH, "18 pairs do not fill"),
        ("data.evaluation=/nowhere", r"data\.evaluation = '/nowhere': no such folder"),
        ("data.evaluation={packs}", r"no pack there .*give one of its parts"),
        ("data.evaluation={packs}/train", r"data\.evaluation = .*a pack for training"),
        ("data.evaluation={spoilt}", r"other pairs than its manifest knows"),
        ("evaluate.sets=/no/lfw.bin", r"evaluate\.sets: /no/lfw\.bin: No such file"),
    ],
)
def test_what_training_refuses_is_not_planned_with(
    packs: Path, tmp_path: Path, word: str, said: str
) -> None:
    spoilt = shutil.copytree(packs / "evaluation", tmp_path / "spoilt")
    with (spoilt / "pairs-00000.beton").open("r+b") as shard:
        shard.write(b"no header")
    settings = config(packs, word.format(packs=packs, spoilt=spoilt))
    for refused in (lambda: make_plan(settings, TWO), lambda: identities_of(settings)):
        with pytest.raises(UserError, match=said):
            refused()
    assert identities_of(config(packs)) == 3


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a small network and of the people of `packs`, as a run exports them."""
    small = load_config(None, SMALL)
    about = {"format": "pairdistill-weights-1", "step": "3", "run_id": "a"}
    about |= {"config": small.model_dump_json(), "identities": json.dumps(["Ada", "Bo", "Cy"])}
    save_file(build_classifier(small, 3).state_dict(), tmp_path / "small.safetensors", about)
    return tmp_path / "small.safetensors"


SMALL = "model.name=tiny", "model.embedding_dim=8"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.init_from=/no/such"], r"^model\.init_from = '/no/such': No such file or folder"),
        (["model.embedding_dim=16"], r"backbone\.\S+: \(8, 96\) there -> \(16, 96\) here"),
        (["model.name=vit_small"], r"^model\.init_from = '.*': another network"),
        (["head.kind=linear"], r"head\.linear\.bias: absent there -> \(3,\) here"),
        (["head.sub_centres=2"], r"head\.weight: \(3, 8\) there -> \(3, 2, 8\) here"),
    ],
)
@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_weights_to_start_from_are_looked_at(
    packs: Path, tmp_path: Path, weights: Path, words: list[str], said: str, placement: str
) -> None:
    root = tmp_path / "run"
    fitting = f"run.dir={root}", f"model.init_from={weights}", f"head.placement={placement}", *SMALL
    make_plan(config(packs, *fitting), TWO)
    make_plan(config(packs, *fitting, "head.margin=adaface"), TWO)
    settings = config(packs, *fitting, *words)
    for refused in (lambda: make_plan(settings, TWO), lambda: identities_of(settings)):
        with pytest.raises(UserError, match=said):
            refused()
    assert not root.exists()
    (root / "checkpoints" / "step-00000001").mkdir(parents=True)
    make_plan(settings, TWO)  # it goes on from there, and needs them no more


def test_what_comes_to_nothing_is_told_when_it_is_planned(
    packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it begins: of two epochs, so of six steps."""
    told: list[str] = []
    monkeypatch.setattr(console, "warn", told.append)
    identities_of(config(packs, "monitor.images=true", "train.epochs=2"))
    assert told == [
        "monitor.images = true: no pictures will be shown"
        " (monitor.pictures_every_steps = 500 of 6 steps)"
    ]
    words = "checkpoint.best_metric=clean/auc", "train.epochs=2"
    identities_of(config(packs, *words))
    identities_of(config(packs, *words, "data.evaluation="))
    assert len(told) == 2 and "no checkpoint will be kept as best" in told[1]
