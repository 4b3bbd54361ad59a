"""A Slurm of shell scripts: each client answers what a test wrote for it, and notes its calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from fake_slurm import FakeSlurm
from submitting import SETTINGS

from distill.data.pack_writer import EncodedPair, write_pack


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
