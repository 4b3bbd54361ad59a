"""Runs that are hurt or stopped, one rank or all: they end with exactly the numbers of another."""

from __future__ import annotations

import os
import signal

from world import STEPS, TWO, World


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


def test_three_failures_at_one_step_end_a_run(world: World) -> None:
    """A rank dies whenever the job has begun, before there is a first step."""
    job = world.submit("hopeless", *TWO)
    for restart in range(3):
        world.until(lambda n=restart: len(world.ends("hopeless")) == n, "the end of a start")
        world.until(lambda: 1 in world.ranks("hopeless"), "the next start")
        os.kill(world.ranks("hopeless")[1], signal.SIGKILL)
    world.finish(job, state="FAILED")
    told = "none: it failed 3 times at step 0"
    assert [end["action"] for end in world.ends("hopeless")] == ["requeue", "requeue", told]
    assert f"task 1: Killed on node2; {told}" in world.log("hopeless")


def test_a_stopped_rank_is_named_with_the_stacks_of_all(reference: World) -> None:
    job = reference.submit("hung", *TWO, "train.hang_timeout_min=0.15")
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


def test_where_slurm_does_not_requeue_the_command_is_told(reference: World) -> None:
    """`scancel --signal` reaches all ranks; then `scontrol requeue` is refused."""
    job = reference.submit("kept", *TWO)
    reference.until_step("kept", 30)
    intruder = reference.pairdistill(*reference.words("kept", *TWO, "--resume"))
    assert f"job {job} (RUNNING) owns it" in intruder.stderr
    reference.cluster.output("scontrol", "update", f"jobid={job}", "requeue=0")
    reference.cluster.output("scancel", "--signal=USR2", job)
    reference.finish(job, state="FAILED")
    (end,) = reference.ends("kept")
    assert (end["kind"], end["cause"], end["action"]) == ("stopped", "SIGUSR2", "requeue")
    assert "the job could not be requeued (scontrol requeue" in reference.log("kept")
    assert f"kept, by hand: scontrol requeue {job}\n" in reference.log("kept")
    assert reference.run("kept").checkpoint_steps()[-1] == end["step"]
    reference.finish(reference.submit("kept", *TWO, "--resume"))
    reference.assert_as("kept", "reference")


def test_requeued_by_hand_with_its_newest_checkpoint_damaged(reference: World) -> None:
    """One bit of one rank's shard: the file is named, the checkpoint before it is used."""
    job, run = reference.submit("by hand", *TWO), reference.run("by hand")
    reference.until_step("by hand", 50)
    reference.cluster.output("scontrol", "requeue", job)
    reference.until(lambda: not reference.ranks("by hand"), "the end of the ranks")
    *_, before, newest = run.checkpoint_steps()
    (shard,) = run.checkpoints.glob(f"step-{newest:08d}/shard-00001-of-00002.safetensors")
    with shard.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    reference.finish(job)
    reference.assert_as("by hand", "reference")
    assert [start["step"] for start in reference.starts("by hand")] == [0, before]
    assert all(end["action"] != "requeue" for end in reference.ends("by hand"))
    told = f"checkpoint damaged and set aside: {run.checkpoints}/step-{newest:08d}.corrupt"
    assert told in reference.log("by hand")
    assert "shard-00001-of-00002.safetensors" in reference.log("by hand")


def test_a_full_disk_costs_checkpoints_and_nothing_else(reference: World) -> None:
    """On a file system of its own, which is made as small as what is on it for a while."""
    job = reference.submit("full", *TWO)
    reference.until_step("full", 25)
    reference.cluster.order("disk full")
    told = "training goes on, the last checkpoint is "
    reference.until(lambda: told in reference.log("full"), "the warning")
    reference.cluster.order("disk free")
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
    job = reference.submit("cancelled", *TWO)
    reference.until_step("cancelled", 5)
    done = reference.pairdistill("cancel", place, "--save")
    assert done.returncode == 0, done.stderr
    reference.finish(job, state="FAILED")
    (end,) = reference.ends("cancelled")
    assert (end["kind"], end["cause"], end["action"]) == ("stopped", "SIGINT", "none")
    job = reference.submit("cancelled", *TWO, "--resume")
    reference.until_step("cancelled", end["step"] + 5)
    assert reference.starts("cancelled")[1]["step"] == end["step"]
    assert reference.pairdistill("cancel", place).returncode == 0
    reference.finish(job, state="CANCELLED")
    reference.until(lambda: not reference.ranks("cancelled"), "the end of the ranks")
    assert all(end["action"] != "requeue" for end in reference.ends("cancelled"))
