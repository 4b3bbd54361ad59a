"""Packs, settings and ways to submit, look at and disturb jobs of the test cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from cluster import Cluster
from rank_processes import forked_by
from safetensors.numpy import load_file
from waiting import until

from distill.data.pack_writer import EncodedPair, write_pack
from distill.run_dir import RunDir
from launcher.starts import read_starts

PEOPLE, KINDS = 4, ("blur",)
STEPS, EVERY = 30, 8
"""Of a run, and of its checkpoints."""
LATE = 2 * EVERY + 3
"""A step after the second checkpoint."""
IN_JOBS = Path(__file__).with_name("in_jobs")
TWO = ("--nodes", "2", "--ranks-per-node", "1")
FOUR = ("--nodes", "2", "--ranks-per-node", "2")
SETTINGS = """
[run]
device = "cpu"
threads_per_rank = 1
[data]
train = '''{root}/train'''
reader = "python"
[model]
name = "tiny"
embedding_dim = 16
[head]
scale = 8.0
[optimizer]
lr = 0.01
[train]
steps = {steps}
global_batch_pairs = 8
hang_timeout_min = 5
[checkpoint]
every_steps = {every}
[monitor]
log_every_steps = 1
tensorboard = false
"""
SITE = """
partition = "test"
account = "face"
signal_seconds = 30
scratch = "{base}/scratch"
[variables]
GREETING = "it's; $(here)"
PYTHONPATH = '''{in_jobs}'''
ORDERS = '''{root}/orders'''
"""


def pairs(count: int) -> Iterator[EncodedPair]:
    rng = np.random.default_rng(1)
    for i in range(count):
        colour = np.random.default_rng(i % PEOPLE).integers(40, 215, 3)
        both = np.clip(colour + rng.normal(0, 25, (2, 8, 8, 3)), 0, 255).astype(np.uint8)
        first, second = (
            simplejpeg.encode_jpeg(cv2.resize(image, (112, 112)), colorsubsampling="444")
            for image in both
        )
        yield EncodedPair(first, second, i % PEOPLE, 0)


def start_commands(cluster: Cluster) -> subprocess.Popen[str]:
    """The process that forks commands: `commands.py`."""
    argv = cluster.inside([sys.executable, str(Path(__file__).with_name("commands.py"))])
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=variables)


def make_world(cluster: Cluster, commands: subprocess.Popen[str], root: Path) -> World:
    """A pack, a configuration and a site profile."""
    names = [f"person {i}" for i in range(PEOPLE)]
    write_pack(root / "train", pairs(48), 48, identities=names, kinds=KINDS)
    (root / "run.toml").write_text(SETTINGS.format(root=root, steps=STEPS, every=EVERY))
    (root / "sites").mkdir()
    (root / "orders").mkdir()
    site = SITE.format(base=cluster.base, root=root, in_jobs=IN_JOBS)
    (root / "sites" / "here.toml").write_text(site)
    return World(cluster, commands, root)


@dataclass
class World:
    """What all tests share."""

    cluster: Cluster
    commands: subprocess.Popen[str]
    root: Path
    seen: list[str] = field(default_factory=list)

    def run(self, name: str) -> RunDir:
        """A run as the tests see it, who do not see the mounts of the cluster."""
        seen = f"/proc/{self.cluster.keeper_pid}/root" if name == "full" else ""
        return RunDir(Path(f"{seen}{self.place(name)}"))

    def place(self, name: str) -> Path:
        """A run as the cluster sees it: that called "full" is on the small disk."""
        return (self.cluster.base / "small" if name == "full" else self.root) / "runs" / name

    def pairdistill(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The program, on the machine that submits."""
        variables = {"PAIRDISTILL_SITES": str(self.root / "sites"), "OMP_NUM_THREADS": "1"}
        variables |= self.cluster.environment | environment
        return forked_by(self.commands, ("-m", "distill", *words), env=variables)

    def words(self, name: str, *more: str) -> list[str]:
        self.seen.append(name)
        toml, folder = str(self.root / "run.toml"), f"run.dir={self.place(name)}"
        return ["submit", toml, folder, "--site", "here", "--time", "10m", *more]

    def submit(self, name: str, *more: str) -> str:
        """Submit a run; the number of its job."""
        done = self.pairdistill(*self.words(name, *more))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.split()[1]

    def state(self, job: str) -> str:
        return self.cluster.output("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def finish(self, job: str, *, seconds: float = 600, state: str = "COMPLETED") -> None:
        """Wait for the end of a job, which must be the expected one."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE")
        self.until(lambda: self.state(job) in ends, f"the end of job {job}", seconds)
        assert self.state(job) == state, self.last_words()

    def until(self, holds: Callable[[], Any], what: str, seconds: float = 400) -> None:
        until(holds, what, seconds, poll_seconds=0.2, told=self.last_words)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The logged numbers without speed and memory: what must repeat to the last bit."""
        path = self.run(name).metrics
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("}")]
        return [
            {tag: v for tag, v in line.items() if not tag.startswith(("speed/", "memory/"))}
            for line in whole
        ]

    def order(self, name: str, step: int, number: int | None = None) -> None:
        """Before that step rank 1 sends itself a signal, or waits: see `in_jobs/sitecustomize`."""
        (self.root / "orders" / f"{name}@{step}").write_text("" if number is None else str(number))

    def submit_to(self, step: int, name: str, *more: str) -> str:
        """Submit a run, and wait until it has made ``step`` steps and waits before the next."""
        self.order(name, step)
        job = self.submit(name, *more)
        self.until_step(name, step)
        return job

    def until_step(self, name: str, step: int) -> None:
        """Wait until a run has made ``step`` steps."""
        self.until(lambda: len(self.metrics(name)) >= step, f"step {step} of {name}")

    def release(self, name: str, step: int) -> None:
        """A run that waits before a step goes on, and later starts do not wait there."""
        (self.root / "orders" / f"{name}@{step}").unlink()

    def starts(self, name: str) -> list[dict[str, Any]]:
        return [line for line in read_starts(self.run(name)) if line["event"] == "start"]

    def ends(self, name: str) -> list[dict[str, Any]]:
        return [line for line in read_starts(self.run(name)) if line["event"] == "end"]

    def start_after(self, name: str, end: dict[str, Any]) -> dict[str, Any]:
        """The first after ``end`` that got as far as its first step; others leave an end alone."""
        return next(start for start in self.starts(name) if start["restart"] > end["restart"])

    def log(self, name: str) -> str:
        """All that the ranks and the script wrote."""
        files = sorted(self.run(name).root.glob("jobs/*/slurm/*.out"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')}" for file in files)

    def last_words(self) -> str:
        """The ends of the logs of the newest run, for a failed test."""
        return "\n".join(self.log(self.seen[-1]).splitlines()[-80:]) if self.seen else ""

    def ranks(self, name: str) -> dict[int, int]:
        """Processes of a run by rank, as seen from here."""
        folder = str(self.place(name)).encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                variables = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"submitit.core._submit" in command and folder in command:
                values = dict(v.split(b"=", 1) for v in variables if b"=" in v)
                if b"srun" not in command.split(b"\0")[0] and b"SLURM_PROCID" in values:
                    found[int(values[b"SLURM_PROCID"])] = int(process.name)
        return found

    def assert_as(self, name: str, reference: str) -> None:
        """A run ended with exactly the numbers and weights of another."""
        assert self.run(name).complete.exists(), self.last_words()
        assert len(self.metrics(reference)) == STEPS
        assert self.metrics(name) == self.metrics(reference)
        ours, theirs = (load_file(self.run(run).weights) for run in (name, reference))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
