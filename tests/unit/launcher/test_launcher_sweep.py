"""Which runs a sweep makes and what came of them, with a Slurm of scripts."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from hypothesis import given
from hypothesis import strategies as st
from submitting import submitted_run

from distill.config import load_config
from distill.errors import UserError
from launcher.commands.status import duration
from launcher.points import draws, grid, overrides_of, split_values
from launcher.slurm import gpus_of, node_kinds, without_job
from launcher.status import RunStatus
from launcher.sweep import Result, Sweep, failed, results
from launcher.sweep_picture import draw, told_apart_by, varied


def test_a_grid_is_every_combination() -> None:
    found = grid(["loss.temperature=1,2,4", "loss.similarity=kl,mmd", "train.zero_stage=1"])
    expected = itertools.product((1, 2, 4), ("kl", "mmd"), (1,))
    assert [tuple(point.values()) for point in found] == list(expected)
    assert set(found[0]) == {"loss.temperature", "loss.similarity", "train.zero_stage"}


def test_tables_and_text_with_commas_are_one_value() -> None:
    ramp = "{start = 0.0, end = 1.0, over_steps = 5}"
    assert len(grid([f"loss.weight={ramp},0.5,[1,2],3"])) == 4
    found = grid([f"loss.weight=0.5,{ramp}", "run.dir='a,b','c'"])
    assert [point["run.dir"] for point in found] == ["a,b", "c"] * 2
    config = load_config(None, overrides_of(found[2]))
    assert config.loss.weight.over_steps == 5  # type: ignore[union-attr]


@given(st.lists(st.text("abc", min_size=1), min_size=1))
def test_values_are_split_at_commas(parts: list[str]) -> None:
    assert split_values(",".join(parts)) == parts


@given(st.floats(-50, 50), st.floats(0.1, 100), st.integers(0, 2**31))
def test_draws_stay_in_their_range_and_repeat(low: float, width: float, seed: int) -> None:
    word = f"optimizer.lr={low}..{low + width}"
    points = draws([word, "loss.similarity=kl,ce"], 5, seed)
    assert points == draws([word, "loss.similarity=kl,ce"], 5, seed)
    slack = 1e-3 * (abs(low) + width)
    for point in points:
        assert low - slack <= point["optimizer.lr"] <= low + width + slack
        assert point["loss.similarity"] in ("kl", "ce")


def test_wide_ranges_are_drawn_by_their_logarithm() -> None:
    points = draws(["optimizer.lr=0.0001..1"], 400, 3)
    logs = [math.log10(point["optimizer.lr"]) for point in points]
    below = [sum(log < edge for log in logs) / 400 for edge in (-3, -2, -1)]
    assert below == pytest.approx([0.25, 0.5, 0.75], abs=0.08)


@pytest.mark.parametrize(
    "word", ["loss.weight", "loss.weight=", "x=2..1", "x=1..inf", "=1", "train.steps=0.5..9"]
)
def test_what_cannot_vary_is_refused(word: str) -> None:
    with pytest.raises(UserError):
        draws([word], 1, 0)


def test_a_setting_varies_in_one_word() -> None:
    words = ["loss.weight=1,2", "run.seed=1,2", "loss. weight=3"]
    for points in (grid, lambda given: draws(given, 2, 0)):
        with pytest.raises(UserError, match=r"^loss\.weight: varied 2 times; write one word"):
            points(words)


def test_two_dots_of_a_path_are_no_range() -> None:
    points = draws(["data.train=../packs/a,../packs/b", "run.dir=a..b"], 20, 0)
    assert {point["data.train"] for point in points} == {"../packs/a", "../packs/b"}
    assert {point["run.dir"] for point in points} == {"a..b"}


@pytest.mark.parametrize("ends", [(100, 1000), (3, 6), (-2, 2)])
def test_settings_of_whole_numbers_are_drawn_whole(ends: tuple[int, int]) -> None:
    """Others are not, however their range is written; both ends are among them."""
    low, high = ends
    words = [f"{key}={low}..{high}" for key in ("train.steps", "loss.weight", "no.such")]
    points = draws(words, 300, 1)
    whole = [point["train.steps"] for point in points]
    assert {type(value) for value in whole} == {int}
    assert (min(whole), max(whole)) == ends or (
        high == 1000 and min(whole) >= 100 < max(whole) - 850
    )
    for key in ("loss.weight", "no.such"):
        assert sum(point[key] % 1 != 0 for point in points) > 250
    if low > 0:
        for point in points[:5]:
            del point["no.such"]
            assert load_config(None, overrides_of(point)).train.steps == point["train.steps"]


def test_too_many_runs_are_refused() -> None:
    with pytest.raises(UserError, match="more than 1000"):
        grid([f"a.b{i}=1,2,3,4" for i in range(5)])


def test_failed_runs_of_a_sweep_and_its_results(tmp_path: Path, fake: FakeSlurm) -> None:
    points = [{"loss.weight": weight} for weight in (0.1, 1.0, 10.0, 20.0)]
    sweep = Sweep(tmp_path / "sweep", points, "loss/total")
    rows = [("21_0", 10, True), ("21_1", 5, False), ("21_2", 6, False), ("21_3", 0, False)]
    for index, (number, step, complete) in enumerate(rows):
        submitted_run(sweep.run(index).root, number, step, complete=complete)
    states = zip(("COMPLETED", "TIMEOUT", "RUNNING", "CANCELLED by 0"), rows, strict=True)
    fake.queue()
    fake.answers("sacct", "".join(f"{row[0]}|{state}|None|node1|\n" for state, row in states))
    sweep.write()
    again = Sweep.read(sweep.root)
    assert again == sweep
    assert failed(again) == [1, 3]
    with sweep.run(0).metrics.open("ab") as file:
        file.write(b"\xff damaged by a disk\n17\n")
    found, silence = results(again)
    assert silence is None
    assert [result.value for result in found] == [0.0, 5.0, 4.0, None]
    assert draw(found, "loss/total", tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    assert picture[:4] == b"\x89PNG"
    other = [Result(found[0].point, found[0].status, 3.0), *found[1:]]
    assert draw(other, "loss/total", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes() != picture
    assert not draw(found[3:], "loss/total", tmp_path / "none.png")


def test_panels_are_for_what_varies_and_colours_for_what_has_few_values(tmp_path: Path) -> None:
    words = ["loss.temperature=1,2,4", "loss.similarity=kl,mmd", "train.steps=4"]
    lrs = (0.001 * step for step in range(1, 10))
    points = [{**point, "optimizer.lr": next(lrs)} for point in grid(words)]
    status = RunStatus("runs/000", "1", "COMPLETED", "", "", 4, 4, 1.0, {}, None, None, [4], 1)
    found = [Result(point, status, float(i)) for i, point in enumerate(points)]
    keys = varied(found)
    assert keys == ["loss.temperature", "loss.similarity", "optimizer.lr"]
    assert told_apart_by(keys, "loss.temperature", found) == "loss.similarity"
    assert told_apart_by(keys, "loss.similarity", found) == "loss.temperature"
    assert told_apart_by(["optimizer.lr"], "optimizer.lr", found) == ""
    assert draw(found, "loss/total", tmp_path / "picture.png")
    assert varied(found[:1]) == []
    assert draw(found[:1], "loss/total", tmp_path / "picture.png")


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40s"), (725, "12m"), (14_700, "4h 05m"), (183_700, "2d 3h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("(null)", 0),
        ("gpu:2", 2),
        ("gpu:a100:8(S:0-1),lustre:1", 8),
        ("gpu:a100:4(S:0),gpu:h100:2", 6),
        ("nogpu:3", 0),
    ],
)
def test_gpus_in_slurms_words(gres: str, count: int) -> None:
    assert gpus_of(gres) == count


def test_kinds_of_nodes(fake: FakeSlurm) -> None:
    first = "test|2|4+|8000|gpu:2|infinite\nhigh|1|1|1024|(null)|1:00\n"
    fake.answers("sinfo", f"{first}test|10|96|1000000|gpu:a100:8(S:0-1)|2-12:00:00\n")
    small, large = node_kinds("test")
    assert (small.cpus, small.mem_gb, small.gpus, small.max_time_min) == (4, 7, 2, None)
    assert (large.count, large.gpus, large.max_time_min) == (10, 8, 60 * 60)
    assert large.mem_gb == 976, "sbatch takes a GB for 1024 MB, and would refuse 1000 GB"


def test_a_job_inside_a_job_starts_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_PROCID", "SBATCH_PARTITION", "RANK", "MASTER_ADDR", "SUBMITIT_EXECUTOR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SLURM_CLUSTERS", "west")  # which sinfo and squeue have answered for
    kept = without_job()
    assert kept["SLURM_CLUSTERS"] == "west"
    assert kept["SLURM_CONF"] == "/etc/slurm.conf"
    assert "PATH" in kept
    assert not {"SLURM_PROCID", "SBATCH_PARTITION", "RANK", "MASTER_ADDR"} & set(kept)
