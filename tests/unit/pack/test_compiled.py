"""Compiled functions on disk, and what is told while there are none yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numba
import pytest
import torch
from typer.testing import CliRunner

from distill import job
from distill.cli.app import build_app
from distill.data.compiled import COMPILING
from distill.errors import UserError

PROGRAM = """
import numpy as np
from distill.data.compiled import COMPILING, told_of_compiling
from distill.data.second.pixels.filters import luma

said = []
with told_of_compiling(said.append):
    luma(np.uint8(1), np.uint8(2), np.uint8(3))
    luma(np.float32(1), np.float32(2), np.float32(3))
assert set(said) <= {COMPILING}
print(len(said))
"""


def test_compiling_is_told_once_and_loading_from_disk_is_not(tmp_path: Path) -> None:
    """The first command on a machine is silent for minutes otherwise."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert said == ["1\n", "0\n"]


def compiles(*_: object, **__: object) -> NoReturn:
    numba.njit(lambda x: x + 1)(1)
    raise UserError("no more of it")


def test_pack_tells_that_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.data.pack.pack", compiles)
    (tmp_path / "people" / "a").mkdir(parents=True)
    (tmp_path / "people" / "a" / "1.jpg").touch()
    words = ["pack", str(tmp_path / "people"), str(tmp_path / "out")]
    assert CliRunner().invoke(build_app(), words).stderr == f"{COMPILING}\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_tells_that_training_compiles(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "make_train_loader", compiles)
    some = SimpleNamespace(
        plan=SimpleNamespace(train=None, micro_batch_pairs=1),
        config=SimpleNamespace(
            data=None,
            run=SimpleNamespace(seed=0),
            train=SimpleNamespace(accumulation=1, images_per_pair=2),
        ),
        ranks=SimpleNamespace(is_first=rank == 0, device=torch.device("cpu")),
    )
    with pytest.raises(UserError, match="no more of it"):
        job.open_loader(some, SimpleNamespace(order=None))  # type: ignore[arg-type]
    assert capsys.readouterr().err == (f"{COMPILING}\n" if rank == 0 else "")
