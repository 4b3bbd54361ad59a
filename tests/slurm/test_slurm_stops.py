"""Runs that are hurt or stopped, one rank or all: they end with exactly the numbers of another."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import pytest
from world import EVERY, LATE, STEPS, TWO, World

pytestmark = pytest.mark.slow

KILLED, WARNED, STOPPED = EVERY + 3, EVERY + 4, LATE


@pytest.fixture(scope="module")
def hurt(reference: World) -> World:
    """A run called "hurt" whose rank 1 is killed, warned and stopped, in one start after another.

    On a busy machine a start makes no progress for ten seconds before its first step.
    """
    numbers = (signal.SIGKILL, signal.SIGUSR2, signal.SIGSTOP)
    for step, number in zip((KILLED, WARNED, STOPPED), numbers, strict=True):
        reference.order("hurt", step, number)
    reference.finish(reference.submit("hurt", *TWO, "train.hang_timeout_min=0.5"))
    reference.assert_as("hurt", "reference")
    return reference


def ended_by(world: World, cause: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last end of "hurt" with that cause, and the start that came after it."""
    *_, end = (end for end in world.ends("hurt") if re.match(cause, end["cause"]))
    return end, world.start_after("hurt", end)


def test_a_killed_rank_ends_the_others_and_the_job_goes_on(hurt: World) -> None:
    end, then = ended_by(hurt, "task 1: Killed on node2")
    assert (end["kind"], end["action"]) == ("failed", "requeue")
    assert then["step"] == EVERY
    assert hurt.ends("hurt")[-1]["kind"] == "complete"


def test_a_signal_to_one_rank_saves_and_requeues(hurt: World) -> None:
    end, then = ended_by(hurt, "SIGUSR2$")
    assert (end["kind"], end["action"]) == ("stopped", "requeue")
    assert then["step"] == end["step"] > WARNED


def test_a_stopped_rank_is_named_with_the_stacks_of_all(hurt: World) -> None:
    who = r"error: rank 1 \(process \d+ on node2\) hangs, without a sign of life: in step "
    end, then = ended_by(hurt, who)
    assert (end["kind"], end["action"], then["step"]) == ("failed", "requeue", 2 * EVERY)
    for rank in (0, 1):
        (log,) = hurt.run("hurt").root.glob(f"jobs/0001/slurm/*_{rank}_log.out")
        assert "most recent call first" in log.read_text(), rank


def test_three_failures_at_one_step_end_a_run(world: World) -> None:
    """A rank dies whenever the job has begun, before there is a first step."""
    world.order("hopeless", 0)
    job = world.submit("hopeless", *TWO)
    for restart in range(3):
        world.until(lambda n=restart: len(world.ends("hopeless")) == n, "the end of a start")
        world.until(lambda: 1 in world.ranks("hopeless"), "the next start")
        os.kill(world.ranks("hopeless")[1], signal.SIGKILL)
    world.finish(job, state="FAILED")
    told = "none: it failed 3 times at step 0"
    assert [end["action"] for end in world.ends("hopeless")] == ["requeue", "requeue", told]
    assert f"task 1: Killed on node2; {told}" in world.log("hopeless")


@pytest.fixture(scope="module")
def kept(reference: World) -> World:
    """A run called "kept": a signal reaches all ranks, and `scontrol requeue` is refused."""
    job = reference.submit_to(EVERY + 3, "kept", *TWO)
    intruder = reference.pairdistill(*reference.words("kept", *TWO, "--resume"))
    assert f"job {job} (RUNNING) owns it" in intruder.stderr
    reference.cluster.output("scontrol", "update", f"jobid={job}", "requeue=0")
    reference.cluster.output("scancel", "--signal=USR2", job)
    reference.finish(job, state="FAILED")
    return reference


def test_where_slurm_does_not_requeue_the_command_is_told(kept: World) -> None:
    end = kept.ends("kept")[0]
    assert (end["kind"], end["cause"], end["action"]) == ("stopped", "SIGUSR2", "requeue")
    assert "the job could not be requeued (scontrol requeue" in kept.log("kept")
    assert f"kept, by hand: scontrol requeue {end['job']}\n" in kept.log("kept")
    assert end["step"] in kept.run("kept").checkpoint_steps()


def test_requeued_by_hand_with_its_newest_checkpoint_damaged(kept: World) -> None:
    """One bit of one rank's shard: the file is named, the checkpoint before it is used."""
    run, saved = kept.run("kept"), kept.run("kept").checkpoint_steps()[-1]
    job = kept.submit_to(LATE, "kept", *TWO, "--resume")
    kept.cluster.output("scontrol", "requeuehold", job)
    kept.until(lambda: not kept.ranks("kept"), "the end of the ranks")
    *_, before, newest = run.checkpoint_steps()
    (shard,) = run.checkpoints.glob(f"step-{newest:08d}/shard-00001-of-00002.safetensors")
    with shard.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    kept.release("kept", LATE)
    kept.cluster.output("scontrol", "release", job)
    kept.finish(job)
    kept.assert_as("kept", "reference")
    assert [start["step"] for start in kept.starts("kept")] == [0, saved, before]
    assert all(end["action"] != "requeue" for end in kept.ends("kept") if end["job"] == job)
    told = f"checkpoint damaged and set aside: {run.checkpoints}/step-{newest:08d}.corrupt"
    assert told in kept.log("kept")
    assert "shard-00001-of-00002.safetensors" in kept.log("kept")


def test_a_full_disk_costs_checkpoints_and_nothing_else(reference: World) -> None:
    """On a file system of its own, which is made as small as what is on it for a while."""
    job = reference.submit_to(EVERY + 3, "full", *TWO)
    reference.order("full", STEPS - 2)
    reference.cluster.order("disk full")
    reference.release("full", EVERY + 3)
    told = "training goes on, the last checkpoint is "
    reference.until(lambda: told in reference.log("full"), "the warning")
    reference.cluster.order("disk free")
    reference.release("full", STEPS - 2)
    reference.finish(job)
    reference.assert_as("full", "reference")
    warnings = [line for line in reference.log("full").splitlines() if told in line]
    assert all(" MB are needed, and " in warning for warning in warnings)
    (last,) = {warning.partition(told)[2] for warning in warnings}
    assert last.startswith(str(reference.place("full") / "checkpoints" / "step-000000"))
    assert reference.run("full").checkpoint_steps()[-1] == STEPS
    assert len(reference.starts("full")) == 1


def test_a_cancelled_job_stays_so(reference: World) -> None:
    """Once after a save, then, resumed from there, at once."""
    place = str(reference.place("cancelled"))
    job = reference.submit_to(5, "cancelled", *TWO)
    done = reference.pairdistill("cancel", place, "--save")
    assert done.returncode == 0, done.stderr
    reference.finish(job, state="FAILED")
    (end,) = reference.ends("cancelled")
    assert (end["kind"], end["cause"], end["action"]) == ("stopped", "SIGINT", "none")
    job = reference.submit_to(LATE, "cancelled", *TWO, "--resume")
    assert reference.starts("cancelled")[1]["step"] == end["step"]
    assert reference.pairdistill("cancel", place).returncode == 0
    reference.finish(job, state="CANCELLED")
    reference.until(lambda: not reference.ranks("cancelled"), "the end of the ranks")
    assert all(end["action"] != "requeue" for end in reference.ends("cancelled"))
