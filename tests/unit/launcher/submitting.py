"""Settings of a small run, and the commands that submit it, as functions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from distill.cli.groups import one_by_one
from distill.run_dir import RunDir
from launcher.commands.submit import submit_command
from launcher.commands.sweep import sweep_command
from launcher.jobfile import JobFile
from launcher.starts import add_start
from launcher.submitted import Submitted

SETTINGS = """
[run]
device = "cpu"
dir = "{root}/runs/a run"
[data]
train = "{root}/train"
reader = "python"
[model]
name = "tiny"
embedding_dim = 16
[train]
steps = 3
global_batch_pairs = 4
"""


def run_of(config: Path) -> RunDir:
    return RunDir(config.parent / "runs" / "a run")


def submit(config: Path, *overrides: str, **options: object) -> None:
    one_by_one(submit_command)(config_path=config, overrides=list(overrides), **options)


def sweep(what: Path, words: Sequence[str] = (), **options: object) -> None:
    one_by_one(sweep_command)(what=what, words=list(words), **options)


def pairdistill(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "distill", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)


def submitted_run(root: Path, number: str, step: int, *, complete: bool = False) -> RunDir:
    """What a run that was submitted leaves, at ``step`` of 10."""
    run = RunDir(root)
    job = run.next_job()
    job.slurm.mkdir(parents=True)
    Submitted(number, "slurm", str(job.slurm), "now").write(job)
    JobFile(str(root), "", "", world_size=2).write(job.job_json)
    add_start(run, {"job": number, "restart": 0}, 0, 10)
    lines = [
        {"step": i, "loss/total": 10.0 - i, "loss/similarity": 0.5, "speed/seconds_per_step": 2.0}
        for i in range(1, step + 1)
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')
    (run.checkpoints / f"step-{step:08d}").mkdir(parents=True)
    (run.checkpoints / f".partial-step-{step + 1:08d}").mkdir()
    if complete:
        run.complete.write_text("{}")
    return run
