"""Where runs stand, with a Slurm of scripts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from submitting import submitted_run

from distill.errors import UserError
from distill.run_dir import RunDir
from launcher.check_request import check_run
from launcher.commands.logs import logs_command
from launcher.commands.status import status_command, table
from launcher.slurm import accounted
from launcher.starts import End, add_end
from launcher.status import find_runs, statuses
from launcher.sweep import Sweep, failed

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
    columns = [list(map(str, column.cells)) for column in table([running, broken, waiting]).columns]
    shown = list(zip(*columns, strict=True))
    assert shown[0][1:] == ("12", "RUNNING", "4/10", "6", "", "12s", "4", "1")
    assert shown[1][1:4] == ("13", "FAILED\nerror: rank 1: no", "7/10")
    assert shown[2][1:] == ("14", "PENDING\nPriority", "0/10", "", "", "", "0", "1")
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
        *_, saved, starts = (list(map(str, column.cells)) for column in table([found]).columns)
        assert (saved, starts) == ([""], [""])
    run.complete.write_text('{"steps": 30, "train": "digest"}')
    assert (statuses([run])[0].state, statuses([run])[0].total_steps) == ("COMPLETED", 30)


def test_a_job_that_the_accounting_does_not_know(tmp_path: Path, fake: FakeSlurm) -> None:
    fake.answers("sacct", "")
    fake.answers("squeue", "")
    run = submitted_run(tmp_path / "run", "99", 3)
    assert statuses([run])[0].state == "UNKNOWN"
    fake.answers("squeue", errors="slurm_load_jobs error: Unable to contact\n", status=1)
    with pytest.raises(UserError, match="Unable to contact"):
        statuses([run])


def test_what_runs_wrote_is_shown_while_the_controller_does_not_answer(
    tmp_path: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """The accounting says what it knows; who would submit or end something waits for an answer."""
    for number in ("12", "13", "14", "15"):
        submitted_run(tmp_path / "runs" / number, number, 4, complete=number == "15")
    fake.answers("sacct", ACCOUNTED)
    fake.answers("squeue", errors="slurm_load_jobs error: Socket timed out\n", status=1)
    status_command([tmp_path / "runs"], json=True)
    shown = capsys.readouterr()
    found = [(run["state"], run["step"]) for run in json.loads(shown.out)]
    states = ("RUNNING", "FAILED", "NO ANSWER", "COMPLETED")
    assert found == [(state, 4) for state in states]
    assert shown.err.count("Socket timed out") == 1
    with pytest.raises(UserError, match="Socket timed out"):
        check_run(RunDir(tmp_path / "runs" / "13"), resume=True)


def test_without_an_accounting_the_controller_says_where_jobs_stand(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    """It knows all that live; a small cluster has no other, and that of a large one has pauses."""
    fake.answers("sacct", errors="Slurm accounting storage is disabled\n", status=1)
    names = ("12", "13", "14", "15")
    runs = [submitted_run(tmp_path / n, n, 3, complete=n == "15") for n in names]
    add_end(runs[2], "14", 0, End("failed", 3, "error: rank 1: no", 1), "none")
    fake.queue("12|RUNNING|None|node1", "13|FAILED|NonZeroExitCode|node1")
    found = statuses(runs)
    assert [s.state for s in found] == ["RUNNING", "FAILED", "UNKNOWN", "COMPLETED"]
    assert found[2].reason == "error: rank 1: no"
    with pytest.raises(UserError, match=r"job 12 \(RUNNING\) owns it"):
        check_run(runs[0], resume=True)
    for run in runs[1:]:
        check_run(run, resume=True)


def test_a_folder_without_runs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        find_runs([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        find_runs([tmp_path / "nowhere"])


@contextmanager
def without_privileges() -> Iterator[None]:
    """A block in which closed folders are closed for this process too."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_runs_of_others_are_passed_over() -> None:
    """Each of a team has private folders below a shared one."""
    with tempfile.TemporaryDirectory() as folder:
        mine, theirs = RunDir(Path(folder) / "mine"), RunDir(Path(folder) / "b" / "theirs")
        for run in (mine, theirs):
            run.root.mkdir(parents=True)
            run.config_toml.write_text("")
        for readable in (Path(folder), mine.root, theirs.root.parent):
            readable.chmod(0o755)  # whatever umask the process has by now
        theirs.root.chmod(0)
        with without_privileges():
            assert find_runs([Path(folder)]) == [mine]
            with pytest.raises(UserError, match=r"theirs.*': cannot be read \(Permission denied\)"):
                find_runs([mine.root, theirs.root])


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
