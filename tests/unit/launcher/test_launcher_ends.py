"""What follows when the ranks have left: notes are read, Slurm is asked, a job is requeued once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ended_job import beat, last, note, outcome, requeued
from fake_slurm import FakeSlurm

from distill.errors import TryAgain
from distill.processes.watchdog import beat_path
from distill.run_dir import JobDir, RunDir
from launcher.inside.verdict import conclude
from launcher.starts import job_number


def test_a_complete_run_ends(job: JobDir, fake: FakeSlurm) -> None:
    outcome(job, None)
    assert conclude(job.root, 0) == 0
    assert not requeued(fake)
    assert (last(job)["kind"], last(job)["step"]) == ("complete", 40)


@pytest.mark.parametrize("signal", ["SIGUSR2", "SIGTERM"])
def test_a_stopped_run_is_requeued(job: JobDir, fake: FakeSlurm, signal: str) -> None:
    outcome(job, signal)
    conclude(job.root, 0)
    assert requeued(fake)
    assert (last(job)["kind"], last(job)["cause"]) == ("stopped", signal)


@pytest.mark.parametrize("state", ["CANCELLED\n", "PENDING\n", "COMPLETING\n", ""])
def test_where_slurm_has_decided_it_is_not_asked(job: JobDir, fake: FakeSlurm, state: str) -> None:
    fake.answers("squeue", state)
    outcome(job, "SIGTERM")
    conclude(job.root, 0)
    assert not requeued(fake)


def test_who_cancels_with_a_save_means_it(job: JobDir, fake: FakeSlurm) -> None:
    outcome(job, "SIGINT")
    conclude(job.root, 0)
    assert not requeued(fake)


def test_the_first_cause_counts_not_who_lost_a_peer(
    job: JobDir, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    note(job, 0, 1, "error: rank 0: connection closed by peer", when=1, secondary=True)
    note(job, 3, 1, "trace\nerror: rank 3: no such thing", when=3, secondary=False)
    note(job, 2, 1, "error: rank 2: later", when=4, secondary=False)
    assert conclude(job.root, 1) == 1
    assert requeued(fake)
    assert last(job)["cause"] == "error: rank 3: no such thing"
    assert last(job)["step"] == 31
    shown = capsys.readouterr().out
    assert "trace\nerror: rank 3: no such thing\n" in shown
    assert "error: rank 3: no such thing; requeue" in shown
    assert "later" not in shown


@pytest.mark.parametrize(("name", "status"), [("SIGUSR2", 140), ("SIGINT", 130)])
def test_a_stop_before_ranks_met(job: JobDir, fake: FakeSlurm, name: str, status: int) -> None:
    note(job, 1, status, f"error: stopped by {name} while ..; ..", when=1, secondary=False)
    assert (conclude(job.root, status), requeued(fake)) == (status, name == "SIGUSR2")
    assert (last(job)["kind"], last(job)["cause"]) == ("stopped", name)


@pytest.mark.parametrize("status", [2, 3])
def test_a_mistake_is_not_repeated(job: JobDir, fake: FakeSlurm, status: int) -> None:
    note(job, 0, status, "error: data.train: truncated", when=1, secondary=False)
    assert conclude(job.root, status) == status
    assert not requeued(fake)
    assert last(job)["kind"] == "mistake"


def test_what_may_pass_by_itself_is_tried_again(job: JobDir, fake: FakeSlurm) -> None:
    note(job, 0, TryAgain.exit_status, "error: checkpoint: NFS", when=1, secondary=False)
    assert conclude(job.root, TryAgain.exit_status) == 75
    assert requeued(fake)


def test_a_killed_rank_is_named_by_srun(job: JobDir, fake: FakeSlurm) -> None:
    log = job.slurm / "12_0_log.out"
    log.write_text(
        "srun: error: node9: task 7: Killed\npairdistill: start 0 ended after step 3: failed\n"
        "srun: error: node2: task 1: Killed\nsrun: error: node1: task 0: Exited with exit code 1\n"
    )
    note(job, 0, 1, "error: rank 0: connection reset", when=1, secondary=True)
    assert conclude(job.root, 137) == 137
    assert last(job)["cause"] == "task 1: Killed on node2"
    assert requeued(fake)


def test_ranks_that_only_lost_another_are_the_cause_where_nothing_says_more(job: JobDir) -> None:
    note(job, 1, 1, "trace\nerror: rank 1: connection reset", when=2, secondary=True)
    conclude(job.root, 1)
    assert (last(job)["kind"], last(job)["cause"]) == ("failed", "error: rank 1: connection reset")


def test_what_an_earlier_start_died_of_is_not_taken_for_the_cause(
    job: JobDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start between had no verdict: its node died."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    log = job.slurm / "12_0_log.out"
    log.write_text("srun: error: node9: task 7: Killed\npairdistill: start 0 ended after step 3\n")
    conclude(job.root, 9)
    assert last(job)["cause"] == "status 9"


def test_ranks_of_an_earlier_start_that_are_no_more_do_not_count(job: JobDir) -> None:
    """Their last words stay in the folder where a run goes on with fewer ranks."""
    beat(RunDir(job.root.parents[1]), 2, 95)
    conclude(job.root, 1)
    assert last(job)["step"] == 31


def test_ranks_that_fail_before_their_first_look_have_made_the_steps_they_began_with(
    job: JobDir,
) -> None:
    """Their beats still say 0; a failure below the newest checkpoint would count as none."""
    run = RunDir(job.root.parents[1])
    beat(run, 0, 0)
    conclude(job.root, 1)
    assert last(job)["step"] == 20
    beat_path(run.ranks, 0).unlink()  # its disk was full
    conclude(job.root, 1)
    assert last(job)["step"] == 20


@pytest.mark.parametrize("client", ["scontrol", "squeue"])
def test_what_to_do_by_hand_is_printed(
    job: JobDir, fake: FakeSlurm, capsys: pytest.CaptureFixture[str], client: str
) -> None:
    fake.answers(client, errors="slurm_requeue error: nobody is there\n", status=1)
    outcome(job, "SIGUSR2")
    conclude(job.root, 0)
    shown = capsys.readouterr().out
    assert ("could not be requeued" in shown) == (client == "scontrol")
    assert "nobody is there" in shown
    assert "by hand: scontrol requeue 12" in shown
    assert len(fake.calls(client)) > 2, "more than once"


@pytest.mark.parametrize("client", ["scontrol", "squeue"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_controller_that_is_busy_for_a_moment_ends_no_run(
    job: JobDir, fake: FakeSlurm, client: str, times: int
) -> None:
    """As where many jobs of a large cluster end together: "Socket timed out on send/recv"."""
    script, count = fake.folder / client, fake.folder / "count"
    busy = f"echo >> '{count}'; [ $(wc -l < '{count}') -gt {times} ] || exit 1\n"
    script.write_text(script.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{busy}"))
    outcome(job, "SIGUSR2")
    conclude(job.root, 0)
    assert requeued(fake)


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"rank": 1}'])
def test_a_note_that_a_disk_has_damaged_keeps_no_other(
    job: JobDir, fake: FakeSlurm, damaged: str
) -> None:
    (job.notes(0) / "rank1.json").write_text(damaged)
    note(job, 2, 2, "error: data.train: truncated", when=1, secondary=False)
    assert conclude(job.root, 2) == 2
    assert last(job)["cause"] == "error: data.train: truncated"


def test_without_a_history_nothing_is_started_again(
    job: JobDir,
    fake: FakeSlurm,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the disk is full: who cannot count failures might repeat one for ever."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("launcher.inside.verdict.add_end", full)
    assert conclude(job.root, 1) == 1
    assert not requeued(fake)
    assert "starts.jsonl cannot be written (No space left on device)" in capsys.readouterr().out


def test_a_run_of_an_array_finds_its_own_file(
    job: JobDir, fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = JobDir(tmp_path / "other")
    other.root.mkdir()
    other.tasks.write_text(json.dumps(["nowhere", str(job.job_json)]))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert job_number() == "10_1"
    outcome(job, "SIGUSR2")
    conclude(other.root, 0)
    assert fake.calls("scontrol") == ["requeue", "10_1"]
