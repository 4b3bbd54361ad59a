"""Whole jobs on two nodes: what they survive, and with exactly which numbers they end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys

import pytest
from world import STEPS, World

from distill.data.manifest import shard_name

TWO = ("--nodes", "2", "--ranks-per-node", "1")
FOUR = ("--nodes", "2", "--ranks-per-node", "2")


@pytest.fixture(scope="session")
def reference(world: World) -> World:
    """An undisturbed run on two nodes with a rank each; all others must end as it did."""
    job = world.submit("reference", *TWO)
    world.finish(job)
    assert world.run("reference").complete.exists(), world.last_words()
    return world


def test_a_job_leaves_all_that_made_it(reference: World) -> None:
    run = reference.run("reference")
    (job,) = run.jobs()
    assert (job.code / "distill" / "train.py").is_file()
    assert json.loads(job.code_json.read_text())["digest"]
    assert "torch" in json.loads(job.environment.read_text())["packages"]
    assert "#SBATCH --time=10" in job.script.read_text()
    assert f"steps = {STEPS}" in job.config_toml.read_text()
    checks = json.loads(job.checks.read_text())
    assert checks["hosts"] == ["node1", "node2"]
    assert checks["all_reduce_gb_per_s"] > 0
    ranks = {path.name.partition("_")[2] for path in job.slurm.glob("*.out")}
    assert ranks == {"0_log.out", "1_log.out"}
    for folder in (run.root, job.root, job.slurm, run.checkpoints):
        assert folder.stat().st_mode & 0o077 == 0, folder
    assert [end["kind"] for end in reference.ends("reference")] == ["complete"]


def test_packs_are_staged_once_a_node_and_used(reference: World) -> None:
    folder = reference.cluster.base / "scratch" / f"pairdistill-{os.geteuid()}"
    (copy,) = (path for path in folder.iterdir() if path.is_dir())
    assert f'train = "{copy}"' in reference.run("reference").config_toml.read_text()
    whole = reference.root / "train" / shard_name(0)
    assert (copy / shard_name(0)).read_bytes() == whole.read_bytes()


def test_two_nodes_with_two_ranks_each(reference: World) -> None:
    """As four ranks of one machine; and stage 3 as stage 1, but for rounding."""
    world, words = reference, ("train.steps=10", "optimizer.lr=0.003")
    toml, folder = str(world.root / "run.toml"), f"run.dir={world.run('here').root}"
    for stage in (1, 3):
        world.finish(world.submit(f"four{stage}", *FOUR, f"train.zero_stage={stage}", *words))
    here = world.pairdistill("train", toml, folder, "--ranks", "4", *words)
    assert here.returncode == 0, here.stderr
    assert len(world.metrics("here")) == 10
    assert world.metrics("four1") == world.metrics("here")
    ours, theirs = ([line["loss/total"] for line in world.metrics(f"four{s}")] for s in (3, 1))
    assert ours == pytest.approx(theirs, rel=2e-4)


def test_a_killed_rank_ends_the_others_and_the_job_goes_on(reference: World) -> None:
    job = reference.submit("killed", *TWO)
    reference.until_step("killed", 30)
    os.kill(reference.ranks("killed")[1], signal.SIGKILL)
    reference.finish(job)
    reference.assert_as("killed", "reference")
    first, last = reference.ends("killed")
    assert (first["kind"], first["action"]) == ("failed", "requeue")
    assert first["cause"].startswith("task 1: Killed on node2")
    assert (last["kind"], last["restart"]) == ("complete", 1)
    assert reference.starts("killed")[1]["step"] >= 20


def test_a_stopped_rank_is_named_with_the_stacks_of_all(reference: World) -> None:
    job = reference.submit("hung", *TWO)
    reference.until_step("hung", 30)
    os.kill(reference.ranks("hung")[1], signal.SIGSTOP)
    reference.finish(job)
    reference.assert_as("hung", "reference")
    first = reference.ends("hung")[0]
    assert first["cause"].startswith("error: rank 1 (process ")
    assert "on node2) hangs, without a sign of life: in step " in first["cause"]
    for rank in (0, 1):
        (log,) = reference.run("hung").root.glob(f"jobs/0001/slurm/*_{rank}_log.out")
        assert "most recent call first" in log.read_text(), rank


def test_a_signal_to_one_rank_saves_and_requeues(reference: World) -> None:
    job = reference.submit("warned", *TWO)
    reference.until_step("warned", 30)
    os.kill(reference.ranks("warned")[1], signal.SIGUSR2)
    reference.finish(job)
    reference.assert_as("warned", "reference")
    first, _ = reference.ends("warned")
    assert (first["kind"], first["cause"], first["action"]) == ("stopped", "SIGUSR2", "requeue")
    assert reference.starts("warned")[1]["step"] == first["step"] > 30


def test_requeued_by_hand(reference: World) -> None:
    job = reference.submit("by hand", *TWO)
    reference.until_step("by hand", 30)
    reference.cluster.output("scontrol", "requeue", job)
    reference.finish(job)
    reference.assert_as("by hand", "reference")
    assert len(reference.starts("by hand")) == 2
    assert all(end["action"] != "requeue" for end in reference.ends("by hand"))


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


def test_a_cancelled_job_stays_so(reference: World) -> None:
    job = reference.submit("cancelled", *TWO)
    reference.until_step("cancelled", 5)
    done = reference.pairdistill("cancel", str(reference.run("cancelled").root))
    assert done.returncode == 0, done.stderr
    reference.finish(job, state="CANCELLED")
    reference.until(lambda: not reference.ranks("cancelled"), "the end of the ranks")
    assert all(end["action"] != "requeue" for end in reference.ends("cancelled"))


def test_a_time_limit_is_saved_before_and_gone_on_after(reference: World) -> None:
    """One minute, and a warning 30 s before its end: the run is longer than that."""
    words = ("--time", "1m", "train.steps=2000", "checkpoint.every_steps=100000")
    job = reference.submit("short", *TWO, *words)
    reference.until(lambda: reference.ends("short"), "the warning", 150)
    (first, *_) = reference.ends("short")
    assert (first["kind"], first["cause"], first["action"]) == ("stopped", "SIGUSR2", "requeue")
    reference.until(lambda: len(reference.starts("short")) > 1, "the second start", 90)
    assert reference.starts("short")[1]["step"] == first["step"] > 0
    reference.cluster.output("scancel", job)


@pytest.mark.parametrize("how", ["crash", "cut"])
def test_a_lost_node(reference: World, how: str) -> None:
    """Its power fails, or its cable does; it comes back after Slurm has noticed."""
    name, back = f"lost by {how}", {"crash": "start", "cut": "join"}[how]
    job = reference.submit(name, *TWO)
    reference.until_step(name, 30)
    reference.cluster.order(f"{how} node2")
    try:
        states = ("PENDING", "REQUEUED", "COMPLETING", "CONFIGURING")
        reference.until(lambda: reference.state(job) in states, "Slurm to notice", 120)
    finally:
        reference.cluster.order(f"{back} node2")
    reference.finish(job, seconds=200)
    reference.assert_as(name, "reference")
    assert len(reference.starts(name)) == 2


def test_submitted_from_inside_a_job(reference: World) -> None:
    """A chain: a job on a node submits another, whose ranks must not take its place for theirs."""
    world = reference
    command = [sys.executable, "-m", "distill", *world.words("chained", *TWO, "train.steps=3")]
    script = f"export PAIRDISTILL_SITES={shlex.quote(str(world.root / 'sites'))}; "
    log = world.root / "chain.log"
    ask = ("sbatch", "--wait", "-p", "test", "--ntasks=2", f"--output={log}")
    done = world.cluster.run(*ask, "--wrap", f"{script} srun -n1 {shlex.join(command)}", timeout=90)
    assert done.returncode == 0, log.read_text()
    number = log.read_text().split("job ")[1].split()[0]
    world.finish(number)
    assert world.run("chained").complete.exists()
    assert world.starts("chained")[0]["ranks"] == 2


def test_another_number_of_nodes_and_another_stage(reference: World) -> None:
    """Two nodes, then one: the run goes on with its own folder (losses: test_elastic.py)."""
    world, words = reference, ("checkpoint.every_steps=4", "--resume")
    world.finish(world.submit("moved", *TWO, "train.steps=4"))
    world.finish(world.submit("moved", "train.steps=8", "train.zero_stage=3", *words))
    assert [line["step"] for line in world.metrics("moved")] == list(range(1, 9))
    assert [(s["ranks"], s["step"]) for s in world.starts("moved")] == [(2, 0), (1, 4)]
    assert len(world.run("moved").jobs()) == 2
