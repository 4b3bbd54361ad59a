"""Which runs a sweep makes, what came of them, and where runs stand, with a Slurm of scripts."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from hypothesis import given
from hypothesis import strategies as st

from distill.config import load_config
from distill.errors import UserError
from distill.run_dir import RunDir
from launcher.commands.logs import logs_command
from launcher.commands.status import duration, table
from launcher.slurm import accounted, gpus_of, node_kinds, without_job
from launcher.starts import End, add_end, add_start
from launcher.status import RunStatus, find_runs, statuses
from launcher.submit import Submitted, check_run
from launcher.sweep import Result, Sweep, draws, failed, grid, overrides_of, results, split_values
from launcher.sweep_picture import draw, told_apart_by, varied


def test_a_grid_is_every_combination() -> None:
    found = grid(["loss.temperature=1,2,4", "loss.similarity=kl,mmd", "train.zero_stage=1"])
    expected = itertools.product((1, 2, 4), ("kl", "mmd"), (1,))
    assert [tuple(point.values()) for point in found] == list(expected)
    assert set(found[0]) == {"loss.temperature", "loss.similarity", "train.zero_stage"}


def test_tables_and_text_with_commas_are_one_value() -> None:
    ramp = "{start = 0.0, end = 1.0, over_steps = 5}"
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


@pytest.mark.parametrize("word", ["loss.weight", "loss.weight=", "x=2..1", "x=a..b", "=1"])
def test_what_cannot_vary_is_refused(word: str) -> None:
    with pytest.raises(UserError):
        draws([word], 1, 0)


def test_too_many_runs_are_refused() -> None:
    with pytest.raises(UserError, match="more than 1000"):
        grid([f"a.b{i}=1,2,3,4" for i in range(5)])


def submitted_run(root: Path, number: str, step: int, *, complete: bool = False) -> RunDir:
    """What a run that was submitted leaves, at ``step`` of 10."""
    run = RunDir(root)
    job = run.next_job()
    job.slurm.mkdir(parents=True)
    Submitted(number, "slurm", str(job.slurm), "now").write(job)
    add_start(run, {"job": number, "restart": 0}, 0, 10)
    lines = [
        {"step": i, "loss/total": 10.0 - i, "loss/similarity": 0.5, "speed/seconds_per_step": 2.0}
        for i in range(1, step + 1)
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')
    (run.checkpoints / f"step-{step:08d}").mkdir(parents=True)
    (run.checkpoints / f".partial-step-{step + 1:08d}").mkdir()
    if complete:
        run.complete.write_text("{}")
    return run


ACCOUNTED = "12|RUNNING|None|node1|\n13|FAILED|NonZeroExitCode|node2|\n"


def test_status_of_a_running_a_failed_and_a_waiting_run(tmp_path: Path, fake: FakeSlurm) -> None:
    fake.answers("sacct", ACCOUNTED)
    fake.answers("squeue", "14|PENDING|Priority|\n12|PENDING|stale|\n")
    runs = [
        submitted_run(tmp_path / "runs" / n, n, s) for n, s in (("12", 4), ("13", 7), ("14", 0))
    ]
    add_end(runs[1], "13", 0, End("failed", 7, "error: rank 1: no", 1), "none")
    running, broken, waiting = statuses(find_runs([tmp_path / "runs"]))
    assert (running.state, running.step, running.total_steps) == ("RUNNING", 4, 10)
    assert (running.loss, running.eta_seconds, running.checkpoints) == (6.0, 12.0, [4])
    assert running.losses == {"total": 6.0, "similarity": 0.5}
    assert (broken.state, broken.eta_seconds) == ("FAILED", None)
    assert (waiting.state, waiting.reason, waiting.loss) == ("PENDING", "Priority", None)
    assert fake.calls("sacct")[-1] == "12,13,14", "asked once for all"
    assert table([running, broken, waiting]).row_count == 3
    fake.answers("sacct", "12|COMPLETED|BeginTime|node1|\n")
    fake.answers("squeue", "")
    assert statuses(runs[:1])[0].reason == "", "it waited once, before a requeue"


def test_a_run_that_was_not_submitted_knows_its_length_once_it_has_begun(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    run.metrics.write_text('{"step": 8, "loss/total": 2.0, "speed/seconds_per_step": 3.0}\n')
    run.config_toml.write_text("[train]\nepochs = 2")
    for length, (total, left) in {"": (0, None), '{"steps": 20}': (20, 36.0)}.items():
        run.length.write_text(length)
        with run.acquire():
            found = statuses([run])[0]
        assert (found.state, found.total_steps, found.eta_seconds) == ("RUNNING", total, left)
    run.complete.write_text('{"steps": 30, "train": "digest"}')
    assert (statuses([run])[0].state, statuses([run])[0].total_steps) == ("COMPLETED", 30)


def test_a_job_that_the_accounting_does_not_know(tmp_path: Path, fake: FakeSlurm) -> None:
    fake.answers("sacct", "")
    fake.answers("squeue", "")
    run = submitted_run(tmp_path / "run", "99", 3)
    assert statuses([run])[0].state == "UNKNOWN"
    fake.answers("sacct", errors="sacct: error: slurmdbd is down\n", status=1)
    with pytest.raises(UserError, match="slurmdbd is down"):
        statuses([run])


def test_a_folder_without_runs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        find_runs([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        find_runs([tmp_path / "nowhere"])


def test_states_of_slurm_are_single_words(fake: FakeSlurm) -> None:
    fake.answers("sacct", "12_3|CANCELLED by 0|None|None assigned|\n")
    fake.queue()
    assert accounted(["12_3"])["12_3"].state == "CANCELLED"


def test_a_job_is_not_over_while_it_waits_to_begin_again(tmp_path: Path, fake: FakeSlurm) -> None:
    """As a Slurm answers after a node died, until the job may begin again."""
    sweep = Sweep(tmp_path, [{"loss.weight": 1.0}], "loss/total")
    run = submitted_run(sweep.run(0).root, "6_0", 3)
    fake.answers("sacct", "6_0|NODE_FAIL|None|node[1-2]|\n")
    fake.queue("6_0|PENDING|BeginTime|")
    (waits,) = statuses([run])
    assert (waits.state, waits.reason) == ("PENDING", "BeginTime")
    assert failed(sweep) == [], "it would be submitted twice"
    with pytest.raises(UserError, match=r"job 6_0 \(PENDING\) owns it"):
        check_run(run, resume=True)
    fake.queue("6_0|NODE_FAIL|None|node[1-2]")
    assert statuses([run])[0].state == "NODE_FAIL"
    assert failed(sweep) == [0]


def test_a_failure_is_told_by_its_cause_not_by_what_it_waited_for(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    """The accounting keeps the reason for which a job waited last."""
    run = submitted_run(tmp_path / "run", "13", 3)
    add_end(run, "12", 0, End("failed", 3, "an earlier job", 1), "none")
    (run.jobs()[0].slurm / "13_0_log.out").touch()
    fake.queue()
    fake.answers("sacct", "13|RUNNING|BeginTime|node1|\n")
    assert statuses([run])[0].reason == ""
    add_end(run, "13", 1, End("failed", 3, "error: rank 1: no", 1), "none")
    fake.answers("sacct", "13|FAILED|BeginTime|node1|\n")
    assert statuses([run])[0].reason == "error: rank 1: no"
    fake.answers("sacct", "13|TIMEOUT|None|node1|\n")
    assert "raise the site's signal_seconds" in statuses([run])[0].reason


def test_a_job_that_could_not_write_its_log_says_so(tmp_path: Path, fake: FakeSlurm) -> None:
    """As where the run folder is on a disk that the nodes do not see: Slurm gives no reason."""
    run = submitted_run(tmp_path / "run", "30", 0)
    fake.answers("sacct", "30|FAILED|None|node1|\n")
    fake.queue()
    assert statuses([run])[0].reason == f"it wrote no log: can the nodes write to {run.root}?"
    with pytest.raises(UserError, match="the job is over and wrote none"):
        logs_command(run.root)
    fake.answers("sacct", "")
    fake.queue("30|PENDING|Priority|")
    with pytest.raises(UserError, match="the job has not begun"):
        logs_command(run.root)


def test_the_length_of_a_run_that_went_on_by_hand(tmp_path: Path, fake: FakeSlurm) -> None:
    fake.answers("sacct", "12|COMPLETED|None|node1|\n")
    fake.queue()
    run = submitted_run(tmp_path / "run", "12", 4)
    run.length.write_text('{"steps": 30}')  # by `train`, which is no submission
    assert statuses([run])[0].total_steps == 30


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
    found = results(again)
    assert [result.value for result in found] == [0.0, 5.0, 4.0, None]
    assert draw(found, "loss/total", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
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
    fake.answers("sinfo", "2|4+|8000|gpu:2|infinite\n10|96|1000000|gpu:a100:8(S:0-1)|2-12:00:00\n")
    small, large = node_kinds("test")
    assert (small.cpus, small.mem_gb, small.gpus, small.max_time_min) == (4, 7, 2, None)
    assert (large.count, large.gpus, large.max_time_min) == (10, 8, 60 * 60)
    assert large.mem_gb == 976, "sbatch takes a GB for 1024 MB, and would refuse 1000 GB"


def test_a_job_inside_a_job_starts_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_PROCID", "SBATCH_PARTITION", "RANK", "MASTER_ADDR", "SUBMITIT_EXECUTOR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    kept = without_job()
    assert kept["SLURM_CONF"] == "/etc/slurm.conf"
    assert "PATH" in kept
    assert not {"SLURM_PROCID", "SBATCH_PARTITION", "RANK", "MASTER_ADDR"} & set(kept)


def test_a_log_is_waited_for_and_followed_to_its_end(
    tmp_path: Path,
    fake: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The job waits, writes, and ends after that: each between two looks."""
    run = submitted_run(tmp_path / "run", "12", 3)
    log = run.jobs()[0].slurm / "12_0_log.out"
    fake.answers("sacct", "12|RUNNING|None|node1|\n")
    fake.queue()
    looks = itertools.count(1)

    def pause(_: float) -> None:
        look = next(looks)
        if look == 30:
            log.write_text("begun\n")
        if look > 40:
            with log.open("a") as file:
                file.write(f"line {look}\n")
        if look == 80:
            fake.answers("sacct", "12|COMPLETED|None|node1|\n")

    monkeypatch.setattr("launcher.commands.logs.time.sleep", pause)
    logs_command(run.root, 0, follow=True)
    shown = capsys.readouterr()
    assert shown.out == log.read_text()
    assert shown.out.startswith("begun\nline 41\n")
    assert shown.err == "job 12 has not begun; its log will appear here\n"
    with pytest.raises(UserError, match=r"12_7_log.out': no such log; there are 12_0_log.out"):
        logs_command(run.root, 7, follow=True)
