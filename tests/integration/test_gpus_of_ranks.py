"""Which GPU each rank of a node ends with, whoever started it: never that of another.

Real processes; torch is made to believe that it was built for CUDA and that the machine has four
devices. What of them a rank sees follows from its environment, by torch's own reading of it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from rank_processes import fork, on_ranks, parent, python

from launcher.jobfile import JobFile

RANK = """
import json, os, sys
from pathlib import Path
import torch
torch.cuda._is_compiled = lambda: True
torch.cuda._raw_device_count_nvml = lambda: 4
from distill.config import load_config
from distill.errors import UserError
from distill.ranks import from_environment
from launcher.inside.checks import _gpus
from launcher.inside.rank import take_place
said = Path(sys.argv[1])
try:
    take_place()
    device = from_environment(load_config(None, ["run.device=auto"])).device
    gpu = torch.cuda._parse_visible_devices()[device.index]
    (said / os.environ.get("RANK", "0")).write_text(json.dumps([gpu, _gpus()]))
except UserError as error:
    (said / os.environ["RANK"]).write_text(json.dumps(error.what))
"""
ASK_NVML = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""torch then counts devices without the library of CUDA."""


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM_") or name == "CUDA_VISIBLE_DEVICES":
            monkeypatch.delenv(name)


def srun(rank: int) -> dict[str, str]:
    """What two tasks on the second of two nodes get, each node with two GPUs for the job."""
    numbers = {"JOB_ID": 4711, "STEP_ID": 0, "PROCID": 2 + rank, "LOCALID": rank, "NODEID": 1}
    counts = {"NTASKS": 4, "STEP_TASKS_PER_NODE": "2(x2)", "GPUS_ON_NODE": 2}
    named = numbers | counts | {"STEP_NODELIST": "gpu[07-08]"}
    return {f"SLURM_{name}": str(value) for name, value in named.items()}


def torchrun(rank: int) -> dict[str, str]:
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
    return {"MASTER_ADDR": "h", "MASTER_PORT": "29500"} | {n: str(v) for n, v in place.items()}


def shown(gpus: str) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": gpus}


def said_by(folder: Path, *environments: Mapping[str, str]) -> list[object]:
    """What ranks with these variables say: their GPU by its number in the machine, and a count."""
    (folder / "said").mkdir()
    programs = [
        {
            "arguments": ["-c", RANK, str(folder / "said")],
            "out": str(folder / f"{i}.out"),
            "err": str(folder / f"{i}.err"),
            "env": os.environ | ASK_NVML | environment,
        }
        for i, environment in enumerate(environments)
    ]
    assert fork(parent(), programs, 400) == [0] * len(programs)
    return [json.loads(path.read_text()) for path in sorted((folder / "said").iterdir())]


@pytest.mark.parametrize(
    ("first", "second", "gpus"),
    [
        (srun(0) | shown("3,1"), srun(1) | shown("3,1"), (3, 1)),
        (srun(0) | shown("3"), srun(1) | shown("1"), (3, 1)),
        (torchrun(0) | shown("3,1"), torchrun(1) | shown("3,1"), (3, 1)),
        (srun(0) | torchrun(0) | shown("3,1"), srun(0) | torchrun(1) | shown("3,1"), (3, 1)),
    ],
    ids=["srun", "srun that binds", "torchrun", "torchrun in a task of srun"],
)
def test_every_rank_of_a_node_has_another_gpu(
    tmp_path: Path, first: Mapping[str, str], second: Mapping[str, str], gpus: tuple[int, int]
) -> None:
    """And the start-up check counts the two that were asked for."""
    assert said_by(tmp_path, first, second) == [[gpu, 2] for gpu in gpus]


@pytest.mark.parametrize(("gpus", "expected"), [("3,1", [3, 1]), (None, [0, 1])])
def test_local_ranks_of_a_submission_too(
    tmp_path: Path, gpus: str | None, expected: list[int]
) -> None:
    """As `submit --cluster local` and `debug` start them, where Slurm's variables are gone."""
    (tmp_path / "rank.py").write_text(RANK)
    env = ASK_NVML | ({} if gpus is None else shown(gpus))
    done = on_ranks(tmp_path / "rank.py", tmp_path, ranks=2, **env)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert found == [[gpu, 4 if gpus is None else 2] for gpu in expected]


def test_ranks_that_one_task_starts_do_not_share_its_gpu(tmp_path: Path) -> None:
    """`train --ranks 2` in a batch script that asked for one."""
    ranks = [srun(0) | torchrun(rank) | shown("3") for rank in range(2)]
    no_gpu = "local rank 1 has no CUDA device: this machine shows 1"
    assert said_by(tmp_path, *ranks) == [[3, 2], no_gpu]


def test_a_single_rank_is_shown_all(tmp_path: Path) -> None:
    assert said_by(tmp_path, shown("3,1")) == [[3, 2]]


TRAINS = """
import os, sys
from pathlib import Path
import distill.train
from launcher.inside.rank import run_rank
os.environ["PAIRDISTILL_PARENT"] = str(os.getppid())
distill.train.train = lambda *_, **__: print("trains") or distill.train.Outcome(0)
run_rank(Path(sys.argv[1]))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize(
    ("device", "asked", "given", "trains"),
    [
        ("auto", 2, {}, False),
        ("auto", 0, {"SLURM_GPUS_ON_NODE": "2"}, False),
        ("auto", 0, {}, True),
        ("cpu", 2, {"SLURM_GPUS_ON_NODE": "2"}, True),
    ],
    ids=["asked for", "a site's", "none", "the CPU is meant"],
)
def test_a_job_does_not_leave_its_gpus_idle_unnoticed(
    tmp_path: Path, device: str, asked: int, given: Mapping[str, str], trains: bool
) -> None:
    """This torch sees none, as one that no driver serves. The rank says so before any waits."""
    job, config, notes = (tmp_path / name for name in ("job.json", "run.toml", "notes"))
    config.write_text(f'[run]\ndevice = "{device}"\n')
    JobFile(str(tmp_path), str(config), "", 4, gpus_per_node=asked).write(job)
    notes.mkdir()
    place = {name: value for name, value in srun(0).items() if name != "SLURM_GPUS_ON_NODE"}
    env = place | given | {"PAIRDISTILL_NOTES": str(notes)}
    done = python("-c", TRAINS, str(job), **env)
    assert (done.returncode, done.stdout) == ((0, "trains\n") if trains else (2, "")), done.stderr
    if not trains:
        text = json.loads((notes / "rank2.json").read_text())["text"]
        assert f"no CUDA device on {socket.gethostname()} (rank 2), where the job has 2 GPU" in text
        assert "is built for the CPU alone; install a build of torch for CUDA" in text
        assert "--exclude HOST" in text
