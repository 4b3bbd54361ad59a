"""Whole runs on two gloo ranks that are hurt, stopped or refused, and what they keep of a state."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest
from rank_processes import on_ranks, python
from safetensors.numpy import load_file
from small_runs import ALONE, IN_ONE_GROUP, STEPS, World, make_world, read_lines

from distill.errors import UserError
from distill.processes.stop import StopRequests
from distill.train import train

pytestmark = pytest.mark.slow

CRAMPED = """
import shutil
from types import SimpleNamespace
shutil.disk_usage = lambda _: SimpleNamespace(free=10**6)
from distill.__main__ import main
main()
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("training"))


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
    need = r"checkpoints and weights need \d\.\d\d MB, and 1\.00 MB are free"
    told = rf"error: '{place}': {need}; free some "
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
