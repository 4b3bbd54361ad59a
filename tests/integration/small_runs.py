"""A small training on two gloo ranks, with faults at exact steps where they are asked for; no test.

Everything runs in processes of its own; those that repeat what one from nothing has shown are forks
(`rank_processes`). Where a fault is needed, the ranks run `RANK`, which causes it and is otherwise
`python -m distill`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from rank_processes import on_ranks
from safetensors.numpy import load_file

from distill.config import Config, load_config
from distill.data.pack_writer import EncodedPair, write_pack
from distill.ranks import Ranks
from distill.run_dir import RunDir

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))
PEOPLE, KINDS = 6, ("blur", "eyes")
NAMES = [f"person {i}" for i in range(PEOPLE)]
STEPS = 12

RANK = """
import os, signal, time
import torch
import distill.objective.terms, distill.train

real_step, real_input = distill.train.train_step, distill.objective.terms.as_network_input
FAULTS = [fault.split(":") for fault in os.environ.get("FAULTS", "").split()]

def step_with_faults(engine, batches, recipe, step, *rest, **more):
    mine = {what for what, rank, at in FAULTS if (int(rank), int(at)) == (engine.ranks.rank, step)}
    if "kill" in mine:
        os.kill(os.getpid(), signal.SIGKILL)
    if "term" in mine:
        os.kill(os.getpid(), signal.SIGTERM)
    if "ctrl-c" in mine:  # reaches the parent, as in a terminal, which passes it on
        heard, came = signal.getsignal(signal.SIGINT), []
        signal.signal(signal.SIGINT, lambda *given: (heard(*given), came.append(given)))
        os.kill(os.getppid(), signal.SIGINT)
        while not came:
            time.sleep(0.01)
    poison = float("nan") if "nan" in mine else 1.0
    distill.objective.terms.as_network_input = lambda images: real_input(images) * poison
    return real_step(engine, batches, recipe, step, *rest, **more)

distill.train.train_step = step_with_faults
from distill.__main__ import main
main()
"""
IN_ONE_GROUP = """
import contextlib, os, signal, sys
import distill.evaluate, distill.train
from distill.config import load_config
from distill.ranks import from_environment, init_process_group, leave_process_group
from distill.processes.spawn import spawned_rank

@contextlib.contextmanager
def one_group(path, words):  # many runs in the same two processes
    with spawned_rank():
        config = load_config(path, words)
        ranks = from_environment(config)
        init_process_group(config, ranks)
        distill.train.process_group = lambda *_: contextlib.nullcontext()
        yield ranks
        leave_process_group()
"""


def face(rng: np.random.Generator, person: int) -> bytes:
    """A blotchy picture in the colour of a person."""
    colour = np.random.default_rng(person).integers(40, 215, 3)
    small = np.clip(colour + rng.normal(0, 25, (8, 8, 3)), 0, 255).astype(np.uint8)
    large = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(large, quality=90, colorsubsampling="444")


def training_pairs(count: int) -> Iterator[EncodedPair]:
    rng = np.random.default_rng(1)
    for i in range(count):
        who = i % PEOPLE
        yield EncodedPair(face(rng, who), face(rng, who), who, i % len(KINDS))


def evaluation_pairs(photographs: int) -> Iterator[EncodedPair]:
    rng = np.random.default_rng(2)
    for i in range(photographs):
        first = face(rng, i % PEOPLE)
        for kind in range(len(KINDS)):
            yield EncodedPair(first, face(rng, i % PEOPLE), i % PEOPLE, kind)


@dataclass
class World:
    """Packs and settings that all tests share, and ways to run the program."""

    root: Path

    def run_dir(self, name: str) -> RunDir:
        return RunDir(self.root / "runs" / name)

    def words(self, name: str, *overrides: str) -> list[str]:
        """Arguments of `train` for the run ``name``."""
        run = f"run.dir={self.run_dir(name).root}"
        return ["train", str(self.root / "run.toml"), run, *overrides]

    def config(self, name: str, *overrides: str) -> Config:
        _, path, *words = self.words(name, *overrides)
        return load_config(path, words)

    def two_ranks(
        self, name: str, *overrides: str, faults: str = ""
    ) -> subprocess.CompletedProcess[str]:
        words = self.words(name, *overrides)
        return on_ranks(self.root / "rank.py", *words, ranks=2, FAULTS=faults)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        return read_lines(self.run_dir(name).metrics)

    def numbers(self, name: str) -> list[dict[str, Any]]:
        """The metrics without speed and memory: what must repeat to the last bit."""
        return [
            {tag: v for tag, v in line.items() if not tag.startswith(("speed/", "memory/"))}
            for line in self.metrics(name)
        ]

    def losses(self, name: str, tag: str = "loss/total") -> list[float]:
        return [line[tag] for line in self.metrics(name) if tag in line]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_world(root: Path) -> World:
    """Packs, settings, and what ranks run, below ``root``."""
    train, held_out = training_pairs(44), evaluation_pairs(12)
    write_pack(root / "train", train, 44, identities=NAMES, kinds=KINDS)
    write_pack(
        root / "evaluation",
        held_out,
        24,
        identities=NAMES,
        kinds=KINDS,
        purpose="evaluation",
        photographs=12,
    )
    (root / "rank.py").write_text(RANK)
    (root / "run.toml").write_text(f"""
[run]
device = "cpu"
threads_per_rank = 1
[data]
train = "{root}/train"
evaluation = "{root}/evaluation"
reader = "python"
[model]
name = "tiny"
embedding_dim = 32
dropout = 0.1
[head]
scale = 8.0
[loss]
weight = {{start = 0.0, end = 1.0, over_steps = 6}}
[optimizer]
lr = 0.03
warmup_steps = 2
[train]
steps = {STEPS}
global_batch_pairs = 8
[evaluate]
every_steps = 5
[checkpoint]
every_steps = 4
[monitor]
log_every_steps = 1
images = true
pictures_every_steps = 5
""")
    return World(root)


def assert_equal_weights(world: World, name: str) -> None:
    """Those of a run are those of the one called "reference"."""
    ours, theirs = (load_file(world.run_dir(run).weights) for run in (name, "reference"))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert np.array_equal(ours[key], theirs[key]), key
