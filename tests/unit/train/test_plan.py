"""What is refused before anything is written, and how long a run is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from distill.config import Config, as_override, load_config
from distill.errors import UserError
from distill.objective import objective_of
from distill.objective.checks import check_head
from distill.plan import best_undecided, come_to_nothing, make_plan, slow_precision
from distill.ranks import Ranks

TWO = Ranks(0, 2, 0, 2, torch.device("cpu"))


def config(packs: Path, *overrides: str) -> Config:
    words = [as_override(f"data.{name}", str(packs / name)) for name in ("train", "evaluation")]
    return load_config(None, [*words, "train.global_batch_pairs=6", *overrides])


def test_a_plan_that_fits(packs: Path) -> None:
    plan = make_plan(config(packs, "train.epochs=5"), TWO)
    assert (plan.total_steps, plan.micro_batch_pairs) == (15, 3)
    assert plan.classes == ["Ada", "Bo", "Cy"]
    assert plan.evaluation is not None
    assert make_plan(config(packs, "train.steps=7", "data.evaluation="), TWO).total_steps == 7


def test_epochs_follow_each_other_without_a_gap(packs: Path) -> None:
    """3 * 18 pairs in batches of 8: six are full, and the seventh holds the last 6 pairs."""
    settings = config(packs, "train.global_batch_pairs=8", "train.epochs=3")
    assert make_plan(settings, TWO).total_steps == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=", r"data\.train is empty.*pairdistill pack"),
        ("data.train=/no/such folder", r"data\.train = '/no/such folder'.*pairdistill pack"),
        ("data.evaluation=/nowhere", r"data\.evaluation = '/nowhere'.*pairdistill pack"),
        ("data.train={packs}/evaluation", r"data\.train = .*a pack for evaluation"),
        ("data.evaluation={packs}/train", r"data\.evaluation = .*a pack for training"),
        ("train.global_batch_pairs=7", r"global_batch_pairs = 7.*multiple of 2"),
        ("train.accumulation=2", r"global_batch_pairs = 6: not divisible by 2 ranks"),
        ("train.global_batch_pairs=20", r"18 pairs do not fill one global batch of 20"),
        ("checkpoint.best_metric=cleen/top5", r"measured is clean, processed, .*lfw/accuracy"),
        ("train.precision=fp16", r"train\.precision = .*fp16"),
        ("head.sample_rate=0.5", r"head\.sample_rate = 0\.5: a replicated head"),
        ("optimizer.clip_head=false", r"clip_head = False: a replicated head is clipped"),
        ("data.second=online", r"train: has second images, and 'online' ones are asked for"),
    ],
)
def test_mistakes(packs: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_plan(config(packs, override.format(packs=packs)), TWO)
    assert error.value.fix


def test_whether_a_backbone_can_be_compiled_is_asked_last(packs: Path) -> None:
    words = "model.compile=true", "train.zero_stage=3"
    with pytest.raises(UserError, match=r"model\.compile = true: not with train\.zero_stage = 3"):
        make_plan(config(packs, *words), TWO)
    with pytest.raises(UserError, match=r"data\.train is empty"):
        make_plan(config(packs, *words, "data.train="), TWO)


@pytest.mark.parametrize("form", ["head.placement=sharded", "loss.form=fused"])
def test_what_needs_the_scores_of_all_classes(packs: Path, form: str) -> None:
    field, value = form.split("=")
    rbf = ("loss.similarity=mmd", "loss.mmd_kernel=rbf")
    with pytest.raises(UserError, match=rf"loss\.mmd_kernel = 'rbf' with {field} = '{value}'"):
        make_plan(config(packs, form, *rbf), TWO)
    make_plan(config(packs, *rbf), TWO)
    make_plan(config(packs, form, *rbf, "train.images=first"), TWO)


@pytest.mark.parametrize("form", ["head.placement=replicated", "head.placement=sharded"])
def test_settings_of_the_similarity_do_not_matter_without_pairs(packs: Path, form: str) -> None:
    """Three identities, and more of them taken by themselves."""
    with pytest.raises(UserError, match=r"loss\.topk_classes = 3: must be smaller"):
        make_plan(config(packs, form, "loss.topk_classes=3"), TWO)
    make_plan(config(packs, form, "loss.topk_classes=3", "train.images=first"), TWO)


def test_more_ranks_than_people(packs: Path) -> None:
    sharded = config(packs, "head.placement=sharded", "train.global_batch_pairs=12")
    assert make_plan(sharded, Ranks(0, 3, 0, 3, torch.device("cpu"))).total_steps
    with pytest.raises(UserError, match=r"3 identities over 4 ranks would leave 1 of them"):
        make_plan(sharded, Ranks(0, 4, 0, 4, torch.device("cpu")))


def test_the_similarity_takes_fewer_people_than_a_step_has(packs: Path) -> None:
    """Two ranks have one person and two; at the rate 0.5 at least one each."""
    make_plan(config(packs, "loss.topk_classes=2"), TWO)
    with pytest.raises(UserError, match=r"loss\.topk_classes = 3: .*; there are 3;"):
        make_plan(config(packs, "loss.topk_classes=3"), TWO)
    sampled = ("head.placement=sharded", "head.sample_rate=0.5")
    make_plan(config(packs, *sampled, "loss.topk_classes=1"), TWO)
    with pytest.raises(UserError, match=r"3, of which head\.sample_rate = 0\.5 may leave 2"):
        make_plan(config(packs, *sampled, "loss.topk_classes=2"), TWO)


@pytest.mark.parametrize("rate", ["0", "0.0", "1.5", "-0.1", "nan"])
def test_a_sample_rate_beyond_its_bounds(packs: Path, rate: str) -> None:
    with pytest.raises(UserError, match=r"head\.sample_rate"):
        config(packs, "head.placement=sharded", f"head.sample_rate={rate}")


def test_what_an_evaluation_will_need_is_asked_for_at_the_start(
    packs: Path, tmp_path: Path
) -> None:
    shutil.copytree(packs / "evaluation", tmp_path / "evaluation")
    (tmp_path / "evaluation" / "pairs.csv").write_text(
        "identity,first,other\nAda,of another pack,\n"
    )
    with pytest.raises(UserError, match=r"pairs\.csv: 1 rows for 12 pairs"):
        make_plan(config(packs, f"data.evaluation={tmp_path}/evaluation"), TWO)


@pytest.mark.parametrize(
    ("every", "kept"),
    [((0, 2), False), ((2, 0), False), ((2, 2), True), ((2, 3), True), ((3, 4), False)],
)
def test_it_is_said_where_no_checkpoint_will_be_the_best(
    every: tuple[int, int], kept: bool
) -> None:
    """Of 12 steps: those that are multiples of both, and not the last, which is saved first."""
    steps = [step for step in range(1, 12) if all(n and step % n == 0 for n in every)]
    assert bool(steps) == kept
    words = [f"evaluate.every_steps={every[0]}", f"checkpoint.every_steps={every[1]}"]
    for asked in ("checkpoint.best_metric=blur/auc", "checkpoint.keep_best=2"):
        text = best_undecided(load_config(None, [*words, asked]), 12)
        assert ("no checkpoint will be kept as best" in text) == (not kept)
    assert not best_undecided(load_config(None, words), 12)
    assert not best_undecided(load_config(None, [*words, "checkpoint.keep_best=0"]), 12)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["monitor.tensorboard=false"], "monitor.tensorboard = false"),
        (["train.images=first"], "train.images = 'first'"),
        (["monitor.pictures_every_steps=13"], "monitor.pictures_every_steps = 13 of 12 steps"),
    ],
)
def test_it_is_said_where_there_will_be_no_pictures(words: list[str], why: str) -> None:
    fitting = "monitor.images=true", "monitor.pictures_every_steps=12"
    assert come_to_nothing(load_config(None, fitting), 12, evaluates=True) == []
    assert come_to_nothing(load_config(None, words), 12, evaluates=True) == []
    (text,) = come_to_nothing(load_config(None, [*fitting, *words]), 12, evaluates=True)
    assert text.startswith(f"monitor.images = true: no pictures will be shown ({why}")


def test_several_packs_are_one_set(packs: Path) -> None:
    other = packs / "other"
    both = as_override("data.train", [str(packs / "train"), str(other)])
    plan = make_plan(config(packs, both, "data.same_names=same_person", "train.epochs=2"), TWO)
    assert plan.classes == ["Ada", "Bo", "Cy", "Di", "Ed"]
    assert plan.total_steps == 2 * 27 // 6
    with pytest.raises(UserError, match=r"1 names stand in several packs \('Cy'\)"):
        make_plan(config(packs, both), TWO)
    (record := other.parent / "train.rec").touch()
    with pytest.raises(UserError, match=r"train\.rec': a file, and no pack of pairs"):
        make_plan(config(packs, as_override("data.train", [str(record)])), TWO)
    with pytest.raises(UserError, match=r"data\.train = '/no/such': no such folder"):
        make_plan(config(packs, as_override("data.train", [str(other), "/no/such"])), TWO)
    with pytest.raises(UserError, match=r"data\.train is empty"):
        make_plan(config(packs, "data.train=[]"), TWO)


RBF_OF_SOME = "loss.similarity=mmd", "loss.mmd_kernel=rbf", "loss.topk_classes=2"


@pytest.mark.parametrize("images", ["pair", "first"])
def test_an_rbf_similarity_of_some_classes_is_refused_before_the_first_step(
    packs: Path, images: str
) -> None:
    """Whatever the form of the loss; and not where there is no similarity."""
    settings = config(packs, *RBF_OF_SOME, f"train.images={images}")
    if images == "first":
        make_plan(settings, TWO)
        objective_of(settings)
        return
    with pytest.raises(UserError, match=r"topk_classes = 2 with loss\.mmd_kernel = 'rbf'"):
        make_plan(settings, TWO)


def test_one_image_cannot_be_normalised(packs: Path) -> None:
    alone = config(packs, "train.global_batch_pairs=2")
    assert make_plan(alone, TWO).micro_batch_pairs == 1  # two images
    with pytest.raises(UserError, match=r"pairs = 2 with train\.images = 'first': one image"):
        make_plan(config(packs, "train.global_batch_pairs=2", "train.images=first"), TWO)
    assert make_plan(config(packs, "train.images=first"), TWO).micro_batch_pairs == 3


def test_a_step_is_about_two_people_at_least(packs: Path) -> None:
    """One rank at the rate 1/3 may draw one of three; of two ranks each has one at any rate."""
    one = Ranks(0, 1, 0, 1, torch.device("cpu"))
    words = "head.placement=sharded", "head.sample_rate=0.3"
    with pytest.raises(UserError, match=r"head\.sample_rate = 0\.3: may leave a step one of 3"):
        make_plan(config(packs, *words), one)
    make_plan(config(packs, *words), TWO)
    make_plan(config(packs, words[0], "head.sample_rate=0.4"), one)


def test_one_person_is_no_classifier() -> None:
    with pytest.raises(
        UserError, match=r"data\.train: 1 person in all, and a classifier needs two; pack the"
    ):
        check_head(Config(), 1, 1)


def test_float32_on_a_gpu_is_told_and_nothing_else() -> None:
    told = [
        slow_precision(load_config(None, [f"train.precision={name}"]), torch.device(kind))
        for name in ("fp32", "bf16", "fp16")
        for kind in ("cuda", "cpu")
    ]
    assert 'train.precision = "fp32"' in told[0] and not any(told[1:])
