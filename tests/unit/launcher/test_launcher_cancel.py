"""Jobs that are ended, and their logs: on a Slurm of shell scripts, and on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fake_slurm import FakeSlurm
from submitting import pairdistill, run_of, submit
from waiting import until

from distill.errors import UserError
from distill.run_dir import RunDir
from launcher.commands.cancel import cancel, cancel_command
from launcher.commands.logs import logs_command
from launcher.commands.options import Cluster
from launcher.slurm import run_in_job
from launcher.starts import add_start
from launcher.status import statuses
from launcher.submitted import Submitted


def test_here_in_the_background_and_cancelled(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")  # whatever this machine has
    words = ("train.steps=100000", "--cluster", "local")
    begun = pairdistill("submit", str(config), *words)
    assert begun.returncode == 0, begun.stderr
    run = run_of(config)
    with pytest.raises(UserError, match="no job was submitted for it; stop `train` by Ctrl-C"):
        cancel(RunDir(config.parent), save=True)
    try:
        until(lambda: run.metrics.exists() and run.metrics.stat().st_size > 0, "the first step")
        assert statuses([run])[0].state == "RUNNING"
        job = Submitted.of(run)
        assert job is not None
        assert job.log_names() == [job.log(0).name], "one process, which starts the ranks"
        started = psutil.Process(int(job.number)).children(recursive=True)
        assert {process.environ()["CUDA_VISIBLE_DEVICES"] for process in started} == {"1,0"}
    finally:
        assert cancel(run, save=True).endswith("saves and ends")
    until(lambda: statuses([run])[0].state == "ENDED", "the end of the run")
    assert run.checkpoint_steps()
    assert cancel(run, save=True).endswith("does not run")


def test_a_job_of_slurm_is_cancelled_or_asked_to_save(config: Path, fake: FakeSlurm) -> None:
    fake.cluster()
    fake.answers("scancel")
    submit(config)
    run = run_of(config)
    fake.queue("12|RUNNING|None|node1")
    assert cancel(run, save=False).endswith("job 12 cancelled")
    add_start(run, {"job": "12", "restart": 0}, 0, 10)
    assert cancel(run, save=True).endswith("job 12 saves and ends")
    assert fake.calls("scancel") == ["12", "--signal=INT", "12"]


def test_a_job_that_does_not_listen_yet_has_nothing_to_save(config: Path, fake: FakeSlurm) -> None:
    """A signal would be lost before the ranks have met, and refused while the job waits."""
    fake.cluster()
    fake.answers("scancel")
    submit(config)
    run = run_of(config)
    words = "job 12 cancelled, it had nothing to save"
    fake.queue("12|RUNNING|None|node1")
    assert cancel(run, save=True).endswith(words)
    add_start(run, {"job": "12", "restart": 0}, 0, 10)
    fake.queue("12|PENDING|BeginTime|", restarts=1)
    assert cancel(run, save=True).endswith(words)
    fake.queue("12|RUNNING|None|node1", restarts=1)  # a node died: nobody has said that it ended
    assert cancel(run, save=True).endswith(words)
    assert fake.calls("scancel") == ["12"] * 3


def test_one_job_that_has_ended_does_not_keep_the_others(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm says nothing of an ended one, and refuses to signal it."""
    fake.cluster()
    runs = [config.parent / "runs" / name for name in ("a", "b", "c")]
    for number, run in enumerate(runs, 12):
        fake.answers("sbatch", f"Submitted batch job {number}\n")
        submit(config, f"run.dir={run}")
    fake.queue("12|COMPLETED|None|node1", "13|RUNNING|None|node1", "14|RUNNING|None|node1")
    fake.answers("scancel", errors="scancel: error: No.\n", status=1)
    with pytest.raises(UserError, match=r"scancel 13: .*No"):
        cancel_command([config.parent / "runs"])
    assert fake.calls("scancel") == ["13", "14"]
    shown = capsys.readouterr()
    assert "job 12 has ended already" in shown.out
    assert "scancel 14: " in shown.err


def test_a_job_of_this_machine_is_known_before_it_holds_the_folder(config: Path) -> None:
    """Ranks import for seconds first; another process with its number would be none of ours."""
    run = run_of(config)
    job = run.next_job()
    job.slurm.mkdir(parents=True)
    waits = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print(); signal.pause()"
    argv = [sys.executable, "-uc", waits, "submitit.local._local", str(job.slurm)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as controller:
        assert controller.stdout is not None
        Submitted(str(controller.pid), "local", str(job.slurm), "now").write(job)
        controller.stdout.read(1)  # now it is what it was started as
        assert statuses([run])[0].state == "RUNNING"
        for resume in (False, True):
            with pytest.raises(UserError, match=rf"job {controller.pid} \(RUNNING\) owns it"):
                submit(config, cluster=Cluster.LOCAL, resume=resume)
        assert cancel(run, save=True).endswith("ends, it had nothing to save")
        assert controller.wait() == -signal.SIGINT
    assert statuses([run])[0].state == "ENDED"
    Submitted(str(os.getpid()), "local", str(job.slurm), "now").write(job)
    assert cancel(run, save=False).endswith("does not run")


def test_a_command_that_gets_no_node_in_time_leaves_no_job_in_the_queue(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Slurm whose nodes are busy keeps that of an srun that is killed, not of one told to end."""
    (fake.folder / "srun").write_text("#!/bin/sh\nexec sleep 600\n")
    (fake.folder / "srun").chmod(0o755)
    sent: list[int] = []
    send = subprocess.Popen.send_signal

    def noted(process: subprocess.Popen[str], number: int) -> None:
        sent.append(number)
        send(process, number)

    monkeypatch.setattr(subprocess.Popen, "send_signal", noted)
    with pytest.raises(UserError, match="srun: no node within 0 s"):
        run_in_job("exec srun hostname", seconds=0.1)
    assert sent == [signal.SIGTERM]


def test_logs_are_found_where_a_run_was_moved_to(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.cluster()
    submit(config)
    (run_of(config).jobs()[0].slurm / "12_0_log.out").write_text("the log\n")
    moved = run_of(config).root.rename(config.parent / "moved")
    logs_command(moved)
    assert capsys.readouterr().out.endswith("the log\n")
