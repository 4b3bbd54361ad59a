"""Which starts of a job are its last: those that would fail, or get nowhere, again."""

from __future__ import annotations

import pytest
from ended_job import beat, note, requeued
from fake_slurm import FakeSlurm

from distill.run_dir import JobDir, RunDir
from launcher.inside.verdict import conclude
from launcher.starts import End, add_end, ends_in_a_row


def test_three_failures_at_one_step_are_enough(
    job: JobDir, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(job.root.parents[1])
    for restart in range(2):
        add_end(run, "12", restart, End("failed", 31, "again", 1), "requeue")
    conclude(job.root, 1)
    assert not requeued(fake)
    assert "it failed 3 times at step 31" in capsys.readouterr().out


@pytest.mark.parametrize("between", [End("failed", 30, "x", 1), End("stopped", 31, "x", 0)])
def test_failures_elsewhere_and_good_ends_begin_the_count_anew(
    job: JobDir, fake: FakeSlurm, between: End
) -> None:
    run = RunDir(job.root.parents[1])
    failure = End("failed", 31, "again", 1)
    for restart, end in enumerate((failure, failure, between, failure)):
        add_end(run, "12", restart, end, "requeue")
    assert ends_in_a_row(run, "12", "failed", 31, 31) == 1
    conclude(job.root, 1)
    assert requeued(fake)


@pytest.mark.parametrize("damage", [b'{"event": "end", "ki', b"\xff\x00\n", b"17\n", b"{}\n"])
def test_a_damaged_history_costs_no_other_line(job: JobDir, fake: FakeSlurm, damage: bytes) -> None:
    """What a kill cut off has no end of line; what follows it must not be lost with it."""
    run = RunDir(job.root.parents[1])
    add_end(run, "12", 0, End("failed", 31, "again", 1), "requeue")
    with run.starts.open("ab") as file:
        file.write(damage)
    add_end(run, "12", 1, End("failed", 31, "again", 1), "requeue")
    assert ends_in_a_row(run, "12", "failed", 31, 31) == 2
    assert b"\n\n" not in run.starts.read_bytes()
    conclude(job.root, 1)
    assert not requeued(fake)


@pytest.mark.parametrize("saved", [20, 38])
def test_failures_without_a_checkpoint_between_them_do_not_go_on_for_ever(
    job: JobDir, fake: FakeSlurm, saved: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where memory leaks: at another step each time, always from the same checkpoint."""
    run = RunDir(job.root.parents[1])
    (run.checkpoints / f"step-{saved:08d}").mkdir(parents=True)
    for restart in range(9):
        add_end(run, "12", restart, End("failed", 32 + restart, "out of memory", 1), "requeue")
    beat(run, 0, 41)
    conclude(job.root, 1)
    assert requeued(fake) == (saved == 38), "the last three have got further than the others"
    said = "it failed 10 times since step 20, without another checkpoint"
    assert (said in capsys.readouterr().out) == (saved == 20)


@pytest.mark.parametrize("step", [0, 30])
def test_a_job_too_short_for_its_first_step_does_not_go_on_for_ever(
    job: JobDir, fake: FakeSlurm, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the packs are copied to another node each time."""
    run = RunDir(job.root.parents[1])
    run.starts.unlink()
    for restart in range(9):
        at = step if restart == 4 else 0
        add_end(run, "12", restart, End("stopped", at, "SIGUSR2", 140), "requeue")
    note(job, 1, 140, "error: stopped by SIGUSR2 while ..; ..", when=1, secondary=False)
    conclude(job.root, 140)
    assert requeued(fake) == (step == 30), "the fifth has made steps"
    said = "it was stopped 10 times at step 0; give it more time (--time)"
    assert (said in capsys.readouterr().out) == (step == 0)


def test_failures_of_an_earlier_job_do_not_count(job: JobDir, fake: FakeSlurm) -> None:
    """Who submits again has mended something."""
    run = RunDir(job.root.parents[1])
    for restart in range(3):
        add_end(run, "11", restart, End("failed", 31, "again", 1), "requeue")
    conclude(job.root, 1)
    assert requeued(fake)
