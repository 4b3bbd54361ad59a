"""Sweeps as they are submitted, to a Slurm of shell scripts."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from fake_slurm import FakeSlurm
from submitting import submit, sweep

from distill.config import load_config
from distill.errors import UserError
from distill.run_dir import RunDir
from launcher.site import SITES
from launcher.submitted import Submitted
from launcher.sweep import Sweep


def submitted_sweep(config: Path, fake: FakeSlurm, word: str) -> Path:
    """The folder of a sweep, whose runs are the tasks of job 20."""
    fake.cluster()
    fake.answers("sbatch", "Submitted batch job 20\n")
    folder = config.parent / "sweep"
    sweep(config, [word], folder=folder)
    return folder


def test_hosts_are_left_out_of_a_sweep_and_of_runs_that_are_submitted_again(
    config: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.cluster()
    (config.parent / "here.toml").write_text('exclude = "node[1-2]"\n')
    monkeypatch.setenv("PAIRDISTILL_SITES", str(config.parent))
    folder = config.parent / "sweep"
    sweep(config, ["loss.weight=1,2"], folder=folder, site="here", exclude="big7")
    fake.answers("sacct", "12_0|FAILED|None|node1|\n12_1|RUNNING|None|node1|\n")
    sweep(folder, resubmit=True)
    sweep(folder, resubmit=True, exclude="node9")  # this time
    sweep(folder, resubmit=True)
    for job, more in zip(RunDir(folder).jobs(), ("", "", ",node9", ""), strict=True):
        assert f"#SBATCH --exclude='node[1-2],big7{more}'\n" in job.script.read_text()


@pytest.mark.parametrize(
    ("name", "value"), [("nodes", 2), ("mem_gb", 8), ("time", "2h"), ("site", "here")]
)
def test_what_runs_that_are_submitted_again_would_not_heed_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    Sweep(tmp_path, [], "loss/total").write()
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} {value}: with --resubmit"):
        sweep(tmp_path, resubmit=True, **{name: value})


def test_a_refused_sweep_can_be_asked_for_again(
    config: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it; nor, in a sweep that has runs, of another try, from wherever."""
    fake.cluster()
    folder = config.parent / "sweep"
    no = {"errors": "sbatch: error: No.\n", "status": 1}
    fake.answers("sbatch", **no)
    for _ in range(2):
        with pytest.raises(UserError, match="Slurm refuses the job"):
            sweep(config, ["loss.weight=1,2"], folder=folder)
        assert not folder.exists()
    fake.answers("sbatch", "Submitted batch job 20\n")
    sweep(config, ["loss.weight=1,2"], folder=folder)
    fake.answers("sacct", "20_0|FAILED|None|node1|\n20_1|RUNNING|None|node1|\n")
    monkeypatch.chdir(config.parent)
    fake.answers("sbatch", **no)
    with pytest.raises(UserError, match="Slurm refuses the job"):
        sweep(Path("sweep"), resubmit=True)
    runs = Sweep.read(folder).runs
    assert [len(run.jobs()) for run in runs] == [1, 1]
    fake.answers("sbatch", "Submitted batch job 21\n")
    sweep(Path("sweep"), resubmit=True)
    assert [len(run.jobs()) for run in runs] == [2, 1]
    done = Submitted.of(runs[0])
    assert done is not None
    assert (done.number, Path(done.logs)) == ("21", RunDir(folder).jobs()[1].slurm)
    script = RunDir(folder).jobs()[1].script.read_text()
    assert f"export PYTHONPATH={folder}/jobs/0002/code" in script


def test_all_runs_of_a_sweep_may_run_at_once_or_so_many_as_are_asked_for(
    config: Path, fake: FakeSlurm
) -> None:
    """submitit itself would let 256 run."""
    fake.cluster()
    fake.answers("sbatch", "Submitted batch job 20\n")
    sweep(config, [f"run.seed={','.join(map(str, range(3)))}"], folder=config.parent / "a")
    sweep(config, ["run.seed=0,1,2"], folder=config.parent / "b", parallel=2)
    for name, array in (("a", "0-2%3"), ("b", "0-2%2")):
        (job,) = RunDir(config.parent / name).jobs()
        assert f"#SBATCH --array={array}\n" in job.script.read_text()


def test_runs_that_are_drawn_are_so_many_and_the_cluster_is_asked_once(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.cluster()
    fake.answers("sbatch", "Submitted batch job 20\n")
    folder = config.parent / "drawn"
    sweep(config, ["loss.weight=0.1..10"], folder=folder, random=3, seed=5, account="face")
    weights = [point["loss.weight"] for point in Sweep.read(folder).points]
    assert len(set(weights)) == 3
    assert all(0.1 <= weight <= 10 for weight in weights)
    assert fake.calls("sacctmgr").count("assoc") == 1
    fake.answers("sacct", "20_0|RUNNING|None|node1|\n")
    capsys.readouterr()
    sweep(folder, json=True)
    plain = json.loads(capsys.readouterr().out)
    assert [result["point"]["loss.weight"] for result in plain] == weights
    assert [result["state"] for result in plain] == ["RUNNING", "UNKNOWN", "UNKNOWN"]
    sweep(folder)
    shown = capsys.readouterr().out
    assert all(f"{weight}" in shown for weight in weights)
    with pytest.raises(UserError, match="nothing to vary"):
        sweep(config, [], folder=config.parent / "none", random=3)
    with pytest.raises(UserError, match="none': is not there"):
        sweep(config.parent / "none")
    with pytest.raises(UserError, match=r"': no sweep there; name the folder"):
        sweep(config.parent)
    (config.parent / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep.json': cannot be read \(Expecting"):
        sweep(config.parent)


@pytest.mark.parametrize("partition", ["", "high"])
def test_the_table_of_a_site_is_for_where_slurm_cannot_be_asked(
    config: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, partition: str
) -> None:
    """The cluster takes what the table does not list, and more than it says, as of one run."""
    fake.cluster()
    monkeypatch.setenv(SITES, str(config.parent))
    table = "[partitions.old]\nnodes = 1\n[partitions.high]\nnodes = 1\n"
    (config.parent / "mine.toml").write_text(table)
    wanted = {"site": "mine", "partition": partition, "nodes": 2}
    submit(config, **wanted)
    sweep(config, ["loss.weight=1,2,3"], folder=config.parent / "sweep", **wanted)
    assert len(Sweep.read(config.parent / "sweep").runs) == 3


def test_failed_runs_are_submitted_again_with_the_settings_of_then(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file was edited for other runs since; a run that was removed begins as it was meant."""
    folder = submitted_sweep(config, fake, "loss.weight=1,2,3")
    runs = Sweep.read(folder).runs
    shutil.rmtree(runs[2].root)
    fake.answers("sacct", "20_0|FAILED|None|node1|\n20_1|TIMEOUT|None|node1|\n")
    fake.answers("sbatch", "Submitted batch job 21\n")
    capsys.readouterr()
    sweep(folder, resubmit=True)
    assert "warning" not in capsys.readouterr().err
    config.write_text(config.read_text().replace("steps = 3", "steps = 9"))
    fake.answers("sacct", "21_0|FAILED|None|node1|\n21_1|FAILED|None|node1|\n")
    sweep(folder, resubmit=True)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{config} is not as it was when the sweep was submitted" in said
    assert f"the settings of then, e.g. {runs[0].root}/jobs/0002/config.toml" in said
    config.unlink()
    sweep(folder, resubmit=True)
    assert [len(run.jobs()) for run in runs] == [4, 4, 3]
    for weight, run in enumerate(runs, 1):
        for job in run.jobs():
            settings = load_config(job.config_toml)
            found = settings.train.steps, settings.loss.weight, settings.run.dir
            assert found == (3, weight, str(run.root))


def test_slurm_is_asked_once_for_all_runs_that_are_submitted_again(
    config: Path, fake: FakeSlurm
) -> None:
    """A busy accounting takes seconds for each question."""
    folder = submitted_sweep(config, fake, "loss.weight=1,2,3")
    fake.answers("sacct", "".join(f"20_{i}|FAILED|None|node1|\n" for i in range(3)))
    before = len(fake.calls("sacct")), len(fake.calls("squeue"))
    sweep(folder, resubmit=True)
    assert fake.calls("sacct")[before[0] :].count("-j") == 1
    assert fake.calls("squeue")[before[1] :].count("-u") == 1


def test_results_are_shown_while_slurm_does_not_answer_and_nothing_is_submitted(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = submitted_sweep(config, fake, "loss.weight=1,2")
    fake.answers("sacct", "20_0|RUNNING|None|node1|\n")
    fake.answers("squeue", errors="slurm_load_jobs error: Socket timed out\n", status=1)
    capsys.readouterr()
    sweep(folder, json=True)
    shown = capsys.readouterr()
    assert [run["state"] for run in json.loads(shown.out)] == ["RUNNING", "NO ANSWER"]
    assert "Socket timed out" in shown.err
    with pytest.raises(UserError, match="Socket timed out"):
        sweep(folder, resubmit=True)
    assert [len(run.jobs()) for run in Sweep.read(folder).runs] == [1, 1]


def test_a_run_that_training_refuses_does_not_keep_others_from_being_submitted_again(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set that one of them measures on was moved away; where none is left, nothing happens."""
    image = np.zeros((112, 112, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(image, colorsubsampling="444")
    for name in ("a", "b"):
        (config.parent / f"{name}.bin").write_bytes(pickle.dumps(([jpeg] * 8, [True, False] * 2)))
    sets = (f'["{config.parent}/{name}.bin"]' for name in ("a", "b"))
    folder = submitted_sweep(config, fake, f"evaluate.sets={','.join(sets)}")
    runs = Sweep.read(folder).runs
    fake.answers("sacct", "20_0|FAILED|None|node1|\n20_1|FAILED|None|node1|\n")
    fake.answers("sbatch", "Submitted batch job 21\n")
    (config.parent / "a.bin").unlink()
    capsys.readouterr()
    sweep(folder, resubmit=True)
    said = capsys.readouterr()
    warned = " ".join(said.err.split())
    assert "warning: run 000 is not submitted: evaluate.sets: " in warned
    assert "run 001" not in warned
    assert "job array 21 submitted: 1 run(s)" in " ".join((said.out + said.err).split())
    assert [len(run.jobs()) for run in runs] == [1, 2]
    (config.parent / "b.bin").unlink()
    fake.answers("sacct", "20_0|FAILED|None|node1|\n21_0|FAILED|None|node1|\n")
    with pytest.raises(UserError, match=r"evaluate\.sets: "):
        sweep(folder, resubmit=True)
    assert [len(run.jobs()) for run in runs] == [1, 2]
