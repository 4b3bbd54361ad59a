"""Whole runs of the real program on two gloo ranks: what they leave, and what they survive.

Everything runs in processes of its own; those that repeat what one from nothing has shown are forks
(`rank_processes`). Where a fault is needed at an exact step, the ranks run `RANK`, which causes it
and is otherwise `python -m distill`.
"""

# over 300 lines: all of it looks at the runs of one fixture, which cost a minute to make

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from rank_processes import on_ranks, python
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.config import Config, load_config
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError
from distill.job import steps_if_complete
from distill.plan import make_plan
from distill.processes.stop import StopRequests
from distill.ranks import Ranks
from distill.run_dir import RunDir
from distill.train import train

pytestmark = pytest.mark.slow

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
CRAMPED = """
import shutil
from types import SimpleNamespace
shutil.disk_usage = lambda _: SimpleNamespace(free=10**6)
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
STAGES = """
real_step = distill.train.train_step

def step_with_usr2(engine, batches, recipe, step, *rest, **more):
    if engine.zero_stage == 2 and engine.ranks.rank == 1 and step == 7:  # told to one rank alone
        os.kill(os.getpid(), signal.SIGUSR2)
    return real_step(engine, batches, recipe, step, *rest, **more)

path, folder, *words = sys.argv[1:]
with one_group(path, words) as ranks:
    distill.train.train_step = step_with_usr2
    for stage, status in ((0, 0), (1, 0), (2, 140), (2, 0), (3, 0)):
        words_of_stage = [f"{folder}{stage}", *words, f"train.zero_stage={stage}"]
        outcome = distill.train.train(load_config(path, words_of_stage), ranks)
        assert outcome.exit_status == status, (stage, outcome)
"""
PLACES = """
from pathlib import Path
from distill.errors import UserError
from distill.run_dir import RunDir

saving = sys.modules["distill.checkpoint.save"]
INT, TERM, USR2 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR2
JPEG = bytes.fromhex("ffd8ffe00010") + b"JFIF"

def write_on_last_image(config, start):  # in the file: it is rank 1 that evaluates it
    with open(f"{config.data.evaluation}/pairs-00000.beton", "r+b") as file:
        file.seek(file.read().rfind(JPEG[1:]) - 1)
        file.write(start)

STARTS = (  # which ranks are sent what when they first, then next, get there; and how it ends
    ({"step": [{1: TERM}]}, (2, 143)),  # warm-up
    ({"evaluation": [{1: None}]}, (5, 2)),  # an image is damaged, until the next start
    ({"evaluation": [{0: USR2}]}, (5, 140)),  # before its step is saved; made anew
    ({"save": [{1: TERM}, {0: TERM, 1: USR2}]}, (9, 143)),  # the second in the save for the first
    ({"save": [{0: INT}]}, (12, 130)),  # the very last one: the last evaluation is left
    ({"evaluation": [{1: TERM}]}, (12, 143)),
    ({}, (12, 0)),
)

def telling(place, real):
    def told(*rest, **more):
        sent = due[place].pop(0) if due.get(place) else {}
        if sent.get(ranks.rank):
            os.kill(os.getpid(), sent[ranks.rank])
        elif ranks.rank in sent:
            write_on_last_image(config, bytes(1))
        return real(*rest, **more)
    return told

path, *words = sys.argv[1:]
with one_group(path, words) as ranks:
    distill.train.train_step = telling("step", distill.train.train_step)
    distill.evaluate.evaluate = telling("evaluation", distill.evaluate.evaluate)
    saving._write_shard = telling("save", saving._write_shard)
    for due, (step, status) in STARTS:
        config = load_config(path, words)
        try:
            ended = distill.train.train(config, ranks)
            assert ended.step == step
        except UserError as error:
            ended = error
            write_on_last_image(config, JPEG)
        saved = max(RunDir(Path(config.run.dir)).checkpoint_steps())
        assert (saved, ended.exit_status) == (step, status), ended
        assert not any(due.values()), due
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

    def start(self, *command: str) -> subprocess.CompletedProcess[str]:
        """From nothing, as a person starts it."""
        return subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

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


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("training")
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


@pytest.fixture(scope="session")
def reference(world: World) -> World:
    """An uninterrupted run called "reference", by `pairdistill train --ranks 2`."""
    done = world.start("-m", "distill", *world.words("reference"), "--ranks", "2")
    assert done.returncode == 0, done.stderr
    assert f"{STEPS} steps done" in done.stdout
    return world


def test_the_loss_goes_down_and_the_files_are_there(reference: World) -> None:
    run, losses = reference.run_dir("reference"), reference.losses("reference", "loss/ce_first")
    assert len(losses) == STEPS
    # By halves: a batch has 8 pairs, and three of them in a row may be easy ones.
    assert sum(losses[STEPS // 2 :]) < 0.85 * sum(losses[: STEPS // 2])
    for path in (run.config_toml, run.weights, run.complete, run.report / "report.json"):
        assert path.stat().st_size > 0, path
    assert run.root.stat().st_mode & 0o077 == 0
    checkpoints = sorted(path.name for path in run.checkpoints.iterdir())
    assert checkpoints[-1] == f"step-{STEPS:08d}"
    weights = load_file(run.weights)
    assert all(np.isfinite(tensor).all() for tensor in weights.values())


def test_every_scalar_is_logged_in_both_places(reference: World) -> None:
    lines = reference.metrics("reference")
    training = [line for line in lines if "loss/total" in line]
    evaluations = [line["step"] for line in lines if "evaluation_clean/top1" in line]
    assert [line["step"] for line in training] == list(range(1, STEPS + 1))
    assert evaluations == [5, 10, STEPS]
    # TensorBoard makes a group of what stands before the slash.
    assert all(tag.count("/") == 1 for line in lines for tag in set(line) - {"step"})
    board = EventAccumulator(str(reference.run_dir("reference").tensorboard))
    board.Reload()
    for tag in set(training[0]) - {"step"}:
        points = {event.step: event.value for event in board.Scalars(tag)}
        expected = {line["step"]: line[tag] for line in training}
        assert points == pytest.approx(expected, rel=1e-6), tag
    assert [event.step for event in board.Images("pairs")] == [5, 10]
    assert "config/text_summary" in board.Tags()["tensors"]


def test_logged_losses_add_up(reference: World) -> None:
    for line in reference.metrics("reference"):
        if "loss/total" in line:
            weight = line["schedule/weight"]
            total = (
                line["loss/ce_first"] + line["loss/ce_second"] + weight * line["loss/similarity"]
            )
            assert line["loss/total"] == pytest.approx(total, rel=1e-5)
            assert weight == min(1.0, (line["step"] - 1) / 6)


def test_a_finished_run_says_so(reference: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = reference.run_dir("reference").metrics.read_text()
    outcome = train(reference.config("reference"), ALONE)
    assert (outcome.step, outcome.exit_status) == (STEPS, 0)
    said = f"already complete, {STEPS} steps; to go on raise train.steps, for other settings"
    assert said in capsys.readouterr().out
    assert reference.run_dir("reference").metrics.read_text() == before


def test_what_is_finished_is_this_network_and_nothing_unreadable(reference: World) -> None:
    def finished(name: str, *words: str) -> bool:
        config = reference.config(name, *words)
        return steps_if_complete(make_plan(config, ALONE), config) == STEPS

    assert finished("reference") and finished("reference", "optimizer.lr=9")
    assert not finished("reference", f"train.steps={STEPS + 1}")
    assert not finished("reference", "train.steps=0")
    assert not finished("reference", "head.scale=9")
    assert not finished("reference", "model.embedding_dim=9")
    copy = reference.run_dir("copy")
    copy.root.mkdir()
    for content in (b"{", b"\xff", reference.run_dir("reference").complete.read_bytes()):
        copy.complete.write_bytes(content)
        assert finished("copy") == content.endswith(b"}")


def test_torchrun_gives_the_same_to_the_last_bit(reference: World) -> None:
    """The same settings once more, from another launcher: two runs are equal."""
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0")
    words = reference.words("torchrun")
    done = reference.start(*torchrun, "--rdzv-backend", "c10d", "-m", "distill", *words)
    assert done.returncode == 0, done.stderr
    assert reference.numbers("torchrun") == reference.numbers("reference")
    assert_equal_weights(reference, "torchrun")


def test_killed_and_stopped_and_resumed_is_as_if_nothing_had_happened(reference: World) -> None:
    world, run = reference, reference.run_dir("hurt")
    stopped = world.two_ranks("hurt", faults="ctrl-c:0:3")
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped by SIGINT" in stopped.stdout
    at = len(world.losses("hurt"))
    assert 4 <= at < STEPS
    assert (run.checkpoints / f"step-{at:08d}").is_dir()

    killed = world.two_ranks("hurt", faults="kill:1:10")
    assert killed.returncode == 137
    assert f"going on after step {at}" in killed.stderr
    assert "rank 1 was killed by SIGKILL" in killed.stderr
    assert not run.complete.exists()
    assert len(world.losses("hurt")) > 8, "steps that the checkpoint does not have"

    finished = world.two_ranks("hurt")
    assert finished.returncode == 0, finished.stderr
    assert "going on after step 8" in finished.stderr
    assert world.numbers("hurt") == world.numbers("reference")
    assert_equal_weights(world, "hurt")


def assert_equal_weights(world: World, name: str) -> None:
    ours, theirs = (load_file(world.run_dir(run).weights) for run in (name, "reference"))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert np.array_equal(ours[key], theirs[key]), key


def test_no_point_is_doubled_after_resumes(reference: World) -> None:
    """Uses the run that was hurt above."""
    folder = reference.run_dir("hurt").tensorboard
    if not folder.exists():
        pytest.skip("the run that was hurt is not there")
    board = EventAccumulator(str(folder))
    board.Reload()
    steps = [event.step for event in board.Scalars("loss/total")]
    assert steps == list(range(1, STEPS + 1))


def test_zero_stages_agree(world: World) -> None:
    """Stage after stage in the same two processes.

    A low learning rate, because PReLU has a kink: where rounding puts an activation on its other
    side, the gradient jumps, and the curves part by more than rounding.
    In stage 2 one rank alone is sent USR2: both stop in good order, and go on.
    """
    (world.root / "stages.py").write_text(IN_ONE_GROUP + STAGES)
    settings = ("data.evaluation=", "monitor.tensorboard=false", "optimizer.lr=0.001")
    words = world.words("zero", *settings)[1:]
    done = on_ranks(world.root / "stages.py", *words, ranks=2)
    assert done.returncode == 0, done.stderr
    curve = world.losses("zero1")
    assert len(curve) == STEPS
    for stage in (0, 2, 3):
        assert world.losses(f"zero{stage}") == pytest.approx(curve, rel=2e-4), stage


def test_a_signal_anywhere_stops_all_ranks_once_and_costs_nothing(reference: World) -> None:
    """To one rank, in warm-up, an evaluation or a save, and again while that stop is saved.

    Nor does an evaluation that fails on one rank.
    """
    (reference.root / "places.py").write_text(IN_ONE_GROUP + PLACES)
    words = reference.words("places")[1:]
    done = on_ranks(reference.root / "places.py", *words, ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stopped by ") == 5
    failed = "step 5 could not be evaluated; the same command goes on from here"
    assert done.stderr.count(failed) == 1
    assert reference.numbers("places") == reference.numbers("reference")
    assert_equal_weights(reference, "places")
    # Step 5 was measured after it was saved, and is the only one that was: so it is the best.
    assert reference.run_dir("places").checkpoint_steps() == [5, 9, 12]


def test_nan_is_skipped_on_all_ranks_then_stops_the_run(world: World) -> None:
    words = ("train.nonfinite_limit=1", "checkpoint.every_steps=2", "data.evaluation=")
    done = world.two_ranks("nan", *words, faults="nan:1:2 nan:1:5 nan:0:6")
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    checkpoint = world.run_dir("nan").checkpoints / "step-00000004"  # step 6 was not finite
    assert last.startswith("error: step 7: the loss is not finite on rank 0 (pairs ")
    assert f"last good checkpoint: {checkpoint}" in last
    kept = sorted(path.name for path in checkpoint.parent.iterdir())
    assert kept == ["step-00000002", "step-00000004"]
    lines = {line["step"]: line for line in world.metrics("nan")}
    assert [step for step, line in lines.items() if line["loss/total"] is None] == [3, 6, 7]
    assert lines[5]["progress/skipped_steps"] == 1.0
    events = read_lines(world.run_dir("nan").events)
    assert [event["step"] for event in events] == [3, 6, 7]
    assert done.stderr.count("step 7:") == 1
    assert len(events[0]["sample_ids"]["1"]) == 4


def test_what_is_not_finite_is_never_the_newest_checkpoint(world: World) -> None:
    """A stop in the midst of skipped steps saves nothing; nor is a run done that ends in them."""
    words = ("train.nonfinite_limit=3", "train.steps=6", "checkpoint.every_steps=2")
    words += ("data.evaluation=", "monitor.tensorboard=false")
    done = world.two_ranks("streak", *words, faults="nan:1:2 nan:1:3 term:1:2")
    run = world.run_dir("streak")
    assert done.returncode == 143, done.stderr
    assert "not saved" in done.stdout + done.stderr
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002"]
    done = world.two_ranks("streak", *words, faults="nan:0:5")
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: step 6, the last: the loss is not finite; last good checkpoint")
    assert sorted(path.name for path in run.checkpoints.iterdir())[-1] == "step-00000004"
    assert not run.complete.exists()


def test_an_interval_that_cannot_be_saved_is_a_warning(world: World) -> None:
    """Its folder is a file: rank 0 cannot write, training goes on, and the end says so."""
    run = world.run_dir("unsaved")
    run.root.mkdir(parents=True)
    run.lock.write_text("")  # a run began here
    run.checkpoints.write_text("")
    words = world.words("unsaved", "train.steps=5", "data.evaluation=", "monitor.tensorboard=false")
    done = python("-m", "distill", *words)
    *told, last = done.stderr.splitlines()
    assert len([line for line in told if "training goes on, without a checkpoint" in line]) == 1
    assert (done.returncode, last[:18]) == (2, "error: checkpoint ")
    assert not run.complete.exists()


def test_a_signal_that_came_before_the_first_step_counts(world: World) -> None:
    """A batch system may send it while torch is being imported."""
    config = world.config("early", "data.evaluation=", "monitor.tensorboard=false")
    with StopRequests() as stops:
        os.kill(os.getpid(), signal.SIGUSR2)
        outcome = train(config, ALONE, stops=stops)
        assert stops.flags == [0.0, 0.0, 1.0]
    assert (outcome.step, outcome.stopped_by) == (1, signal.SIGUSR2)
    assert world.run_dir("early").checkpoint_steps() == [1]
    left = {"RANK", "LOCAL_RANK", "DS_ACCELERATOR"} & os.environ.keys()
    assert not left, "a process that nobody made a rank is none afterwards"


def test_a_disk_too_small_for_the_checkpoints_is_seen_before_the_first_step(world: World) -> None:
    words = world.words("cramped", "data.evaluation=", "monitor.tensorboard=false")
    done = python("-c", CRAMPED, *words)
    assert done.returncode == 2
    place = re.escape(str(world.run_dir("cramped").checkpoints))
    told = rf"error: '{place}': checkpoints need \d\.\d\d MB, and 1\.00 MB are free; free some "
    assert re.match(told, done.stderr.splitlines()[-1])
    assert not world.run_dir("cramped").metrics.exists()


def test_a_second_job_is_refused(world: World) -> None:
    named = rf"another job works here \(process {os.getpid()} on "
    with world.run_dir("busy").acquire(), pytest.raises(UserError, match=named):
        train(world.config("busy"), ALONE)
    assert [path.name for path in world.run_dir("busy").root.iterdir()] == ["run.lock"]


def test_adafaces_running_lengths_survive_a_kill_and_a_skipped_step(world: World) -> None:
    """Under stage 3; the buffers are saved with the weights."""
    settings = ("head.margin=adaface", "train.zero_stage=3", "head.adaface_decay=0.3")
    settings = (*settings, "data.evaluation=", "monitor.tensorboard=false")
    settings = (*settings, "train.nonfinite_limit=3")
    whole = world.two_ranks("adaface", *settings, faults="nan:1:2")
    assert whole.returncode == 0, whole.stderr
    killed = world.two_ranks("hurt adaface", *settings, faults="nan:1:2 kill:1:6")
    assert killed.returncode == 137
    finished = world.two_ranks("hurt adaface", *settings, faults="nan:1:2")
    assert finished.returncode == 0, finished.stderr
    assert world.numbers("hurt adaface") == world.numbers("adaface")
    ours, theirs = (load_file(world.run_dir(run).weights) for run in ("hurt adaface", "adaface"))
    for name in ("adaface.mean", "adaface.std"):
        assert np.array_equal(ours[name], theirs[name])
        assert np.isfinite(ours[name])
    assert ours["adaface.mean"] != 20.0
