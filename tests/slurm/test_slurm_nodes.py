"""Runs whose nodes are taken from them: by a limit, by another job, by a crash."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
from world import EVERY, LATE, TWO, World

pytestmark = pytest.mark.slow

CRASHED, CUT = EVERY + 6, LATE
"""Steps that are made before a node is lost."""
ENOUGH_SECONDS = 35
"""Left of a new limit: to be warned 30 s before the end. Jobs here may be a minute over it."""


@pytest.fixture
def impatient(reference: World) -> Iterator[World]:
    """Slurm gives up nodes that are silent for ten seconds."""
    reference.cluster.order("patience short")
    yield reference
    reference.cluster.order("patience long")


def test_nodes_are_taken_by_another_job_a_crash_and_a_cut(impatient: World) -> None:
    """One way in each start of a run, which waits for it, and goes on where it had saved."""
    reference = impatient
    job = reference.submit_to(EVERY + 3, "taken", *TWO)
    # A job that matters more wants all cores of both nodes for a moment.
    ask = ("--partition=high", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4")
    reference.order("taken", CRASHED)
    reference.order("taken", CUT)
    reference.cluster.output("sbatch", *ask, "--output=/dev/null", "--wrap", "srun sleep 1")
    lose_a_node(reference, job, CRASHED, "crash", "start")
    lose_a_node(reference, job, CUT, "cut", "join")
    reference.finish(job)
    reference.assert_as("taken", "reference")
    first, *_, last = reference.ends("taken")
    assert (first["kind"], first["cause"]) == ("stopped", "SIGUSR2")
    assert last["kind"] == "complete"
    *begun, after_cut = (start["step"] for start in reference.starts("taken"))
    assert begun == [0, first["step"], first["step"]]
    assert after_cut >= 2 * EVERY  # more where the ranks heard TERM when they could talk again


def lose_a_node(world: World, job: str, step: int, how: str, back: str) -> None:
    """Its power fails, or its cable does; it comes back after Slurm has noticed."""
    world.until_step("taken", step)
    world.cluster.order(f"{how} node2")
    try:
        states = ("PENDING", "REQUEUED", "COMPLETING", "CONFIGURING")
        world.until(lambda: world.state(job) in states, "Slurm to notice")
        # The accounting has it as failed until it may begin again.
        again = world.pairdistill(*world.words("taken", *TWO, "--resume"))
        assert f"job {job} (" in again.stderr and ") owns it" in again.stderr, again.stdout
    finally:
        world.cluster.order(f"{back} node2")
    world.release("taken", step)


def test_a_time_limit_is_saved_before_and_gone_on_after(reference: World) -> None:
    """Slurm warns 30 s before the end, or up to 30 s earlier; the run waits for that.

    The limit comes when the run is under way, and goes with the warning: on a slow machine a start
    takes longer than a limit that a test has time to wait for.
    """
    submitted = time.monotonic()
    job = reference.submit_to(EVERY + 3, "short", *TWO, "checkpoint.every_steps=100000")
    minutes = math.ceil((time.monotonic() - submitted + ENOUGH_SECONDS) / 60)
    reference.cluster.output("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    reference.until(lambda: reference.ends("short"), "the end after the warning")
    reference.cluster.output("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    reference.finish(job)
    first, *_, last = reference.ends("short")
    assert (first["kind"], first["cause"], first["action"]) == ("stopped", "SIGUSR2", "requeue")
    assert last["kind"] == "complete"
    assert reference.start_after("short", first)["step"] == first["step"] > EVERY + 3
    reference.assert_as("short", "reference")
