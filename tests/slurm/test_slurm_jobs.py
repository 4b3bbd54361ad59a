"""Whole jobs on two nodes: what they survive, and with exactly which numbers they end."""

from __future__ import annotations

import json
import os
import shlex
import sys

import pytest
from rank_processes import python
from world import FOUR, STEPS, TWO, World

from distill.data.manifest import shard_name

pytestmark = pytest.mark.slow


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


def test_a_node_without_its_disk_is_named_and_the_job_ends(world: World) -> None:
    """A mistake of the profile: starting again would not help."""
    (world.root / "sites" / "diskless.toml").write_text(
        'account = "face"\nscratch = "/proc/none"\n'
    )
    job = world.submit("diskless", "--site", "diskless")
    world.finish(job, state="FAILED")
    (end,) = world.ends("diskless")
    assert (end["kind"], end["action"]) == ("mistake", "none")
    assert end["cause"].startswith("error: on node1: /proc/none: cannot be written (")


BIND = """
import os
from launcher.inside.binding import bind
from launcher.inside.rendezvous import place
here = place(os.environ)
bind(int(here["LOCAL_RANK"]), int(here["LOCAL_WORLD_SIZE"]))
print(here["RANK"], os.environ["SLURMD_NODENAME"], os.environ["CUDA_VISIBLE_DEVICES"])
"""


def test_each_rank_is_bound_to_one_of_the_gpus_that_slurm_shows(world: World) -> None:
    """Slurm shows both GPUs of a node to both ranks; each keeps one."""
    ask = ("srun", "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2")
    shown = world.cluster.output(*ask, sys.executable, "-c", BIND)
    expected = ["0 node1 0", "1 node1 1", "2 node2 0", "3 node2 1"]
    assert sorted(shown.splitlines()) == expected


def test_two_nodes_with_two_ranks_each(reference: World) -> None:
    """As four ranks of one machine; and stage 3 as stage 1, but for rounding."""
    # A low learning rate: PReLU has a kink, and rounding decides on which side of it one is.
    world, words = reference, ("train.steps=10", "optimizer.lr=0.0003")
    toml, folder = str(world.root / "run.toml"), f"run.dir={world.run('here').root}"
    ask = (*FOUR, "--gpus-per-node", "2")
    for stage in (1, 3):
        world.finish(world.submit(f"four{stage}", *ask, f"train.zero_stage={stage}", *words))
    here = python("-m", "distill", "train", toml, folder, "--ranks", "4", *words)
    assert here.returncode == 0, here.stderr
    assert len(world.metrics("here")) == 10
    assert world.metrics("four1") == world.metrics("here")
    ours, theirs = ([line["loss/total"] for line in world.metrics(f"four{s}")] for s in (3, 1))
    assert ours == pytest.approx(theirs, rel=2e-4)


@pytest.fixture(scope="module")
def chained(world: World) -> World:
    """A run called "chained": a job on a node submits it, by a program that starts from nothing."""
    settings = ("train.steps=4", "checkpoint.every_steps=4")
    command = [sys.executable, "-m", "distill", *world.words("chained", *TWO, *settings)]
    script = f"export PAIRDISTILL_SITES={shlex.quote(str(world.root / 'sites'))}; "
    log = world.root / "chain.log"
    ask = ("sbatch", "--wait", "-p", "test", "--ntasks=2", f"--output={log}")
    done = world.cluster.run(
        *ask, "--wrap", f"{script} srun -n1 {shlex.join(command)}", timeout=600
    )
    assert done.returncode == 0, log.read_text()
    number = log.read_text().split("job ")[1].split()[0]
    world.finish(number)
    return world


def test_submitted_from_inside_a_job(chained: World) -> None:
    """Its ranks must not take the place of the job that submitted it for theirs."""
    assert chained.run("chained").complete.exists()
    assert chained.starts("chained")[0]["ranks"] == 2


def test_another_number_of_nodes_and_another_stage(chained: World) -> None:
    """Two nodes, then one: the run goes on with its own folder (losses: test_elastic.py)."""
    words = ("train.steps=8", "train.zero_stage=3", "checkpoint.every_steps=4", "--resume")
    chained.finish(chained.submit("chained", *words))
    assert [line["step"] for line in chained.metrics("chained")] == list(range(1, 9))
    assert [(s["ranks"], s["step"]) for s in chained.starts("chained")] == [(2, 0), (1, 4)]
    assert len(chained.run("chained").jobs()) == 2
