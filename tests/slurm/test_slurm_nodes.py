"""Runs whose nodes are taken from them: by a limit, by another job, by a crash."""

from __future__ import annotations

import math
import time

import pytest
from world import TWO, World

ENOUGH_SECONDS = 60
"""Left of a new limit: to be warned half of it before the end, and to save."""


def test_preempted_by_a_job_that_matters_more(reference: World) -> None:
    """The other one wants all cores of both nodes for a moment."""
    job = reference.submit("preempted", *TWO)
    reference.until_step("preempted", 30)
    ask = ("--partition=high", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4")
    reference.cluster.output("sbatch", *ask, "--output=/dev/null", "--wrap", "srun sleep 1")
    reference.finish(job)
    reference.assert_as("preempted", "reference")
    first, last = reference.ends("preempted")
    assert (first["kind"], first["cause"]) == ("stopped", "SIGUSR2")
    assert last["kind"] == "complete"


def test_a_time_limit_is_saved_before_and_gone_on_after(reference: World) -> None:
    """Slurm warns 30 s before the end, or up to 30 s earlier; the ranks are held up until it does.

    The limit comes when the run is under way, and goes with the warning: on a slow machine a start
    takes longer than a limit that a test has time to wait for.
    """
    submitted = time.monotonic()
    patient = ("checkpoint.every_steps=100000", "train.hang_timeout_min=10")
    job = reference.submit("short", *TWO, *patient)
    reference.until_step("short", 10)
    minutes = math.ceil((time.monotonic() - submitted + ENOUGH_SECONDS) / 60)
    with reference.held_up("short"):
        reference.cluster.output("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
        reference.until(lambda: reference.warned("short"), "the warning")
    reference.cluster.output("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    reference.finish(job)
    first, last = reference.ends("short")
    assert (first["kind"], first["cause"], first["action"]) == ("stopped", "SIGUSR2", "requeue")
    assert last["kind"] == "complete"
    assert reference.starts("short")[1]["step"] == first["step"]
    reference.assert_as("short", "reference")


@pytest.mark.parametrize("how", ["crash", "cut"])
def test_a_lost_node(reference: World, how: str) -> None:
    """Its power fails, or its cable does; it comes back after Slurm has noticed."""
    name, back = f"lost by {how}", {"crash": "start", "cut": "join"}[how]
    job = reference.submit(name, *TWO)
    reference.until_step(name, 30)
    reference.cluster.order(f"{how} node2")
    try:
        states = ("PENDING", "REQUEUED", "COMPLETING", "CONFIGURING")
        reference.until(lambda: reference.state(job) in states, "Slurm to notice")
        # The accounting has it as failed until it may begin again.
        again = reference.pairdistill(*reference.words(name, *TWO, "--resume"))
        assert f"job {job} (" in again.stderr and ") owns it" in again.stderr, again.stdout
    finally:
        reference.cluster.order(f"{back} node2")
    reference.finish(job)
    reference.assert_as(name, "reference")
    assert len(reference.starts(name)) == 2
