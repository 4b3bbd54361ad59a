"""Submitting: to a Slurm of shell scripts, and for real on this machine."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fake_slurm import FakeSlurm
from submitting import pairdistill, run_of, submit, sweep

from distill.errors import UserError
from distill.run_dir import RunDir
from launcher.commands.options import Cluster
from launcher.commands.tensorboard import link_runs
from launcher.doctor import slurm_checks
from launcher.submitted import Submitted


def test_a_job_is_handed_over_with_its_folder(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.cluster()
    submit(config, nodes=2, gpus_per_node=2, time="1h", partition="high")
    run = run_of(config)
    (job,) = run.jobs()
    (script,) = fake.calls("sbatch")
    # submitit hands over a file under a name of its own, and renames it when it has the number
    assert Path(script).parent == job.slurm
    assert "#SBATCH --ntasks-per-node=2\n" in job.script.read_text()
    done = Submitted.of(run)
    assert done is not None
    assert (done.number, done.cluster) == ("12", "slurm")
    assert json.loads(job.job_json.read_text())["world_size"] == 4
    assert run.root.stat().st_mode & 0o777 == 0o700
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"job 12 submitted: 4 rank(s) on 2 node(s); run folder {run.root}"


def test_a_gpu_has_a_core_for_each_thread_that_decodes(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless --cpus says otherwise; the largest of what a sweep varies."""
    fake.cluster()
    cases = [((), {}, 1), (("data.workers=2",), {}, 1)]
    cases += [(("data.workers=2",), {"gpus_per_node": 2}, 2)]
    cases += [(("data.workers=2",), {"gpus_per_node": 2, "cpus": 1}, 1)]
    for words, asked, cores in cases:
        submit(config, *words, dry_run=True, **asked)
        script = capsys.readouterr().out
        assert f"#SBATCH --cpus-per-task={cores}\n" in script
        assert f" --cpus-per-task={cores} " in script, "of srun"
    with pytest.raises(
        UserError, match=r"--cpus = 6: partition 'test' has 4 at most.*data\.workers"
    ):
        submit(config, "data.workers=3", gpus_per_node=2)
    sweep(config, ["data.workers=1,2,1"], folder=config.parent / "sweep", gpus_per_node=2)
    (job,) = RunDir(config.parent / "sweep").jobs()
    assert "#SBATCH --cpus-per-task=2\n" in job.script.read_text()


def test_a_refusal_of_slurm_leaves_nothing(config: Path, fake: FakeSlurm) -> None:
    fake.cluster()
    fake.answers("sbatch", errors="sbatch: error: Batch job submission failed: No.\n", status=1)
    with pytest.raises(UserError, match=r"Slurm refuses the job: .*submission failed: No"):
        submit(config)
    assert not run_of(config).root.exists()


def test_a_disk_that_is_full_is_told_in_a_line_and_holds_nothing_of_it(
    config: Path, fake: FakeSlurm
) -> None:
    """The kernel refuses to write more than some bytes of a file, as it does where no room is."""
    fake.cluster()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(.*File too large") as error:
            submit(config)
        with pytest.raises(UserError, match="File too large"):
            sweep(config, ["loss.weight=1,2"], folder=config.parent / "sweep")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(error.value)) < 500
    assert not run_of(config).root.exists()
    assert not (config.parent / "sweep").exists()
    assert not fake.calls("sbatch")


def test_a_folder_that_python_would_take_for_two_is_refused(config: Path, fake: FakeSlurm) -> None:
    """A name with the time of day in it: the copy of the sources would not be what runs."""
    fake.cluster()
    for cluster in Cluster:
        with pytest.raises(UserError, match=r"run\.dir = '.*/13:14': Python reads : as the end"):
            submit(config, f"run.dir={config.parent}/13:14", cluster=cluster)
    with pytest.raises(UserError, match=r"run\.dir = '.*/13:14/runs/000': Python"):
        sweep(config, ["loss.weight=1,2"], folder=config.parent / "13:14")
    assert not (config.parent / "13:14").exists()


def test_a_cluster_whose_plugin_chooses_the_partition(config: Path, fake: FakeSlurm) -> None:
    """There is no default one; the limits of some other mean nothing."""
    fake.cluster()
    script = fake.folder / "sinfo"
    script.write_text(script.read_text().replace("test*", "test"))
    with pytest.raises(UserError, match="--gpus-per-node = 3: partition 'high' has 2 at most"):
        submit(config, gpus_per_node=3, partition="high")
    submit(config, gpus_per_node=4)
    assert Submitted.of(run_of(config)) is not None


def test_without_sbatch(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(config.parent))
    with pytest.raises(UserError, match=r"sbatch is not on PATH: .*--cluster local"):
        submit(config)


def test_a_cluster_without_partitions(config: Path, fake: FakeSlurm) -> None:
    fake.cluster()
    fake.answers("sinfo", "\n")
    for partition in (None, "gpu"):
        with pytest.raises(UserError, match="sinfo names no partition"):
            submit(config, partition=partition)
    assert not fake.calls("sbatch")


def test_a_run_is_not_begun_twice(config: Path, fake: FakeSlurm) -> None:
    fake.cluster()
    submit(config)
    fake.answers("sacct", "12|RUNNING|None|node1|\n")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"job 12 \(RUNNING\) owns it"):
            submit(config, resume=resume)
    fake.answers("sacct", "12|FAILED|None|node1|\n")
    with pytest.raises(UserError, match="there is a run already; add --resume"):
        submit(config)
    submit(config, resume=True)
    assert len(run_of(config).jobs()) == 2


def test_a_folder_that_another_process_holds_is_refused(config: Path, fake: FakeSlurm) -> None:
    fake.cluster()
    named = rf"another job works here \(process {os.getpid()} on "
    with run_of(config).acquire(), pytest.raises(UserError, match=named):
        submit(config)


def test_a_folder_of_other_things_is_refused(config: Path, fake: FakeSlurm) -> None:
    """Settings may stand there before the run does."""
    fake.cluster()
    run = run_of(config)
    run.root.mkdir(mode=0o700, parents=True)
    (run.root / "run.toml").write_text("")
    (run.root / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"'thesis\.tex' in it is no part of a run"):
        submit(config)
    assert {path.name for path in run.root.iterdir()} == {"run.toml", "thesis.tex"}
    (run.root / "thesis.tex").unlink()
    submit(config)
    assert len(run.jobs()) == 1


def test_here_and_now(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as `debug` changes the environment; and in a shell under srun."""
    step = ("STEP_ID", "PROCID", "LOCALID", "NODEID", "STEP_TASKS_PER_NODE", "NTASKS", "JOB_ID")
    for name, value in zip(step, ("0", "0", "0", "0", "1", "1", "12"), strict=True):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
    words = ["submit", str(config), "--cluster", "debug", "--ranks-per-node", "2"]
    done = pairdistill(*words)
    assert done.returncode == 0, done.stderr
    run = run_of(config)
    assert run.complete.exists()
    (job,) = run.jobs()
    assert json.loads(job.checks.read_text())["world_size"] == 2
    again = pairdistill(*words)
    assert again.returncode == 2
    assert "there is a run already" in again.stderr


def test_other_sources_than_those_submitted_are_refused(config: Path, fake: FakeSlurm) -> None:
    """The copy is changed while the job waits: the start-up checks name the node."""
    fake.cluster()
    submit(config)
    (job,) = run_of(config).jobs()
    with (job.code / "distill" / "errors.py").open("a") as file:
        file.write("# changed\n")
    done = subprocess.run(
        [sys.executable, "-m", "launcher.inside.rank", str(job.job_json)],
        env={**os.environ, "PYTHONPATH": str(job.code), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode != 0
    assert "start-up checks: other sources on " in done.stderr
    assert not run_of(config).checkpoint_steps()


def test_runs_of_any_name_meet_in_one_board(tmp_path: Path) -> None:
    names = ("x/it's: a,b", "y/it's: a,b", "it's: a,b-2", "it's: a,b-3", "z/it's: a,b")
    runs = [RunDir(tmp_path / name) for name in names]
    for run in runs:
        run.tensorboard.mkdir(parents=True)
    (tmp_path / "board").mkdir()
    link_runs(runs, tmp_path / "board")
    assert {p.resolve() for p in (tmp_path / "board").iterdir()} == {r.tensorboard for r in runs}
    with pytest.raises(UserError, match="no run has TensorBoard files"):
        link_runs([RunDir(tmp_path / "z")], tmp_path / "board")


BOARD = """
from pathlib import Path
import sys
from launcher.commands.tensorboard import tensorboard_command
tensorboard_command([Path(sys.argv[1])], port=0)
"""


def test_the_board_listens_to_this_machine_alone(tmp_path: Path) -> None:
    """The sockets that its process listens on, as the kernel has them; Ctrl-C ends it."""
    run = RunDir(tmp_path / "run")
    run.tensorboard.mkdir(parents=True)
    run.config_toml.write_text("")
    board = subprocess.Popen(
        [sys.executable, "-c", BOARD, str(run.root)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert board.stderr is not None
        line = next(line for line in board.stderr if "http://" in line)
        (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", line)
        here = [c for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == int(port)]
        assert {c.laddr.ip for c in here if c.status == "LISTEN"} == {"127.0.0.1"}
    finally:
        server = psutil.Process(board.pid).children()
        for process in (*server, board):
            process.send_signal(signal.SIGINT)
        board.communicate(timeout=300)
    _, alive = psutil.wait_procs(server, timeout=300)
    assert not alive


def test_the_doctor_says_what_is_missing(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake.folder))
    clients, *_ = slurm_checks(job=True)
    assert not clients.ok
    assert clients.found.startswith("not on PATH: sbatch, srun, ")
