"""Runs whose nodes are taken from them: by a limit, by another job, by a crash."""

from __future__ import annotations

import pytest
from world import TWO, World


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
    """One minute, and a warning 30 s before its end; the ranks are held up until it comes.

    Slurm looks at limits every 30 s and warns up to one such interval early, so a first start may
    be told, and leave, before its first step; it is in no list of starts then. The starts after
    the one that saved have more time: on a slow machine they would hardly begin in half a minute.
    """
    job = reference.submit("short", *TWO, "--time", "1m", "checkpoint.every_steps=100000")
    reference.until_step("short", 10)
    reference.until(lambda: reference.held_up_and_told("short", 2.0), "the warning")
    reference.until(
        lambda: any(end["step"] >= 10 for end in reference.ends("short")), "the end of that start"
    )
    told = reference.ends("short")
    kinds = {(end["kind"], end["cause"], end["action"]) for end in told}
    assert kinds == {("stopped", "SIGUSR2", "requeue")}
    reference.cluster.output("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    reference.finish(job)
    assert reference.starts("short")[-1]["step"] == told[-1]["step"]
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
