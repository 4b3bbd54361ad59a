"""Whole runs of the real program on two gloo ranks: what they leave, and what they survive.

All are compared with one that nobody disturbed, and which was started from nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from rank_processes import on_ranks, python
from safetensors.numpy import load_file
from small_runs import ALONE, IN_ONE_GROUP, STEPS, World, assert_equal_weights, make_world
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.job import steps_if_complete
from distill.plan import make_plan
from distill.train import train

pytestmark = pytest.mark.slow

TORCHRUN = """
import subprocess, sys
from forked import ForkedProcess
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main

def fork(args, env, stdout, stderr, start_new_session):
    python, unbuffered, *rest = args
    assert unbuffered == "-u" and not stdout and not stderr
    streams = {"stdin": subprocess.DEVNULL, "stdout": sys.stdout, "stderr": sys.stderr}
    return ForkedProcess([python, *rest], env=env, pass_fds=(), process_group=0, **streams)

subprocess_handler.Popen = fork
main(sys.argv[1:])
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def reference(world: World) -> World:
    """An uninterrupted run called "reference", by `pairdistill train --ranks 2`."""
    done = subprocess.run(
        [sys.executable, "-m", "distill", *world.words("reference"), "--ranks", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
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
    torchrun = ("--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d")
    done = python("-c", TORCHRUN, *torchrun, "-m", "distill", *reference.words("torchrun"))
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


def test_no_point_is_doubled_after_resumes(reference: World) -> None:
    """Uses the run that was hurt above."""
    folder = reference.run_dir("hurt").tensorboard
    if not folder.exists():
        pytest.skip("the run that was hurt is not there")
    board = EventAccumulator(str(folder))
    board.Reload()
    steps = [event.step for event in board.Scalars("loss/total")]
    assert steps == list(range(1, STEPS + 1))


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
