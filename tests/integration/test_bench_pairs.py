"""The comparison of arms over seeds: what an arm means, its statistics, and that it goes on."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import sem, ttest_rel

from distill.config import Config, DataConfig, Ramp, load_config
from distill.data.batch import as_network_input
from distill.data.loader import make_eval_loader
from distill.data.manifest import read_pack
from distill.demo.arms import ARMS, SETTINGS
from distill.demo.story import evaluation_numbers
from distill.trained import restore

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import bench_pairs
import pairs_table

ROOT = Path(__file__).parents[2]


def settings(arm: str) -> Config:
    return load_config(SETTINGS, bench_pairs.arm_of(arm).overrides)


def test_the_demos_arms_are_as_the_demo_has_them() -> None:
    for arm, name in zip(ARMS, ("first", "pairs", "ce"), strict=True):
        assert settings(name) == load_config(SETTINGS, arm.overrides)


def test_an_arm_says_temperature_and_last_weight() -> None:
    loss, usual = settings("mmd/T=8/w=0.3").loss, settings("kl").loss
    assert (loss.similarity, loss.temperature) == ("mmd", 8.0)
    assert isinstance(loss.weight, Ramp)
    assert isinstance(usual.weight, Ramp)
    assert loss.weight == Ramp(start=0.0, end=0.3, over_steps=usual.weight.over_steps)


@pytest.mark.parametrize("arm", ["second", "pairs/T=2", "kl/t=2", "kl/T", "kl/T=warm"])
def test_other_arms_are_refused(arm: str) -> None:
    with pytest.raises(ValueError, match=r"arm|could not convert"):
        bench_pairs.arm_of(arm)


def test_seeds_are_ranges_and_numbers() -> None:
    assert bench_pairs.seeds_of("3-5,9") == [3, 4, 5, 9]


def test_errors_are_those_of_scipy_and_differences_are_paired() -> None:
    draws = np.random.default_rng(0).random((2, 6))
    of = {"pairs": dict(zip("abcdef", draws[0], strict=True))}
    of["kl"] = dict(zip("fbdace", draws[1], strict=True))  # in another order, and one seed more
    lines = [
        {"arm": arm, "seed": seed, "clean/auc": str(value)}
        for arm, values in (of | {"kl": of["kl"] | {"g": 9.0}}).items()
        for seed, value in values.items()
    ]
    found = pairs_table.mean(lines, "pairs", "clean/auc")
    assert found == pytest.approx((draws[0].mean(), sem(draws[0]), 6))
    apart = pairs_table.difference(lines, "kl", "pairs", "clean/auc")
    true = ttest_rel([of["kl"][seed] for seed in "abcdef"], draws[0])
    assert apart.seeds == 6
    assert apart.mean / apart.error == pytest.approx(true.statistic)


@pytest.mark.parametrize("arms", [("pairs",), ("kl", "first")])
def test_arms_that_cannot_be_compared_are_not_drawn(tmp_path: Path, arms: tuple[str, ...]) -> None:
    numbers = dict.fromkeys(pairs_table.METRICS, "0.5")
    lines = [{"arm": arm, "seed": seed} | numbers for arm in arms for seed in ("1", "2")]
    assert bench_pairs.plotted(tmp_path / "pairs.csv", lines).endswith("another arm")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    quick, work = ("train.steps=2",), tmp_path / "work"
    job = bench_pairs.Job(bench_pairs.arm_of("pairs"), 7, work / "people-2/seed-7", quick)
    names = ("overrides", "seconds", "device", "date", "versions")
    facts = dict.fromkeys(pairs_table.METRICS, "0.1234") | dict.fromkeys(names, "as it was")
    done = {"arm": "pairs", "seed": "7", "settings": job.settings} | facts
    pairs_table.write_lines(tmp_path / "pairs.csv", [done])

    words = ["--arms", "pairs,kl", "--seeds", "7", "--people", "2", "--work", str(work)]
    command = [sys.executable, str(ROOT / "benchmarks/bench_pairs.py"), *words, *quick]
    ended = subprocess.run(
        [*command, "--save", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with (tmp_path / "pairs.csv").open(newline="") as file:
        new, old = sorted(csv.DictReader(file), key=lambda line: line["arm"])
    assert old == done
    assert new["overrides"] == "train.steps=2 loss.similarity='kl'"
    assert (tmp_path / "pairs.png").stat().st_size > 10_000
    (run,) = job.folder.glob("runs/*")
    evaluation = job.folder / "packs" / "evaluation"
    for name, value in (evaluation_numbers(run) | blur_apart(run, evaluation)).items():
        if name in new:
            assert float(new[name]) == pytest.approx(value, abs=5.1e-5)
    assert "| clean/top1 | 0.123 ± nan |" in ended.stdout


def blur_apart(run: Path, evaluation: Path) -> dict[str, float]:
    """By scipy, from images that the other reader decodes."""
    pack, model = read_pack(evaluation), restore(run).model
    data = DataConfig(reader="python")
    (batch,) = make_eval_loader(pack, data, rank=0, world_size=1, batch_pairs=1000)
    with torch.inference_mode():
        sides = [model(as_network_input(side)).logits.double().numpy() for side in batch.both]
    blurred = (batch.kinds == pack.manifest.kinds.index("blur")).numpy()
    p, q = (softmax(side[blurred] / 3, axis=1) for side in sides)
    assert len(p) == pack.manifest.photographs
    return {"blur/apart": float((rel_entr(p, q) + rel_entr(q, p)).sum() / 2 / len(p))}
