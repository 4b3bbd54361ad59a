"""A Slurm of shell scripts: each client answers what a test wrote for it, and notes its calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from ended_job import beat
from fake_slurm import FakeSlurm
from submitting import SETTINGS

from distill.data.pack_writer import EncodedPair, write_pack
from distill.run_dir import JobDir, RunDir
from launcher.jobfile import JobFile
from launcher.starts import add_start


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "fake slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return FakeSlurm(folder)


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may themselves run in a job."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SBATCH_", "SUBMITIT_")):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = [
        simplejpeg.encode_jpeg(
            rng.integers(0, 255, (112, 112, 3), np.uint8), colorsubsampling="444"
        )
        for _ in range(8)
    ]
    pairs = (EncodedPair(image, image, i % 2, 0) for i, image in enumerate(images))
    write_pack(tmp_path / "train", pairs, 8, identities=["a", "b"], kinds=("blur",))
    (tmp_path / "run.toml").write_text(SETTINGS.format(root=tmp_path))
    return tmp_path / "run.toml"


@pytest.fixture
def job(tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> JobDir:
    """A job that has begun, at step 20 of 100, and is at step 31."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr("launcher.inside.verdict.time.sleep", lambda _: None)
    fake.answers("squeue", "RUNNING\n")
    fake.answers("scontrol")
    run = RunDir(tmp_path / "run")
    folder = run.next_job()
    folder.slurm.mkdir(parents=True)
    folder.notes(0).mkdir(parents=True)
    run.ranks.mkdir()
    beat(run, 0, 31)
    JobFile(str(run.root), "", "", 2, logs=str(folder.slurm)).write(folder.job_json)
    add_start(run, {"job": "12", "restart": 0}, 20, 100)
    return folder
