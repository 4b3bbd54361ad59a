"""What is refused at submission, in one line with the reason, and leaves nothing behind."""

from __future__ import annotations

import pytest
from world import World

REFUSED = {
    "partition": (("--partition", "nowhere"), "--partition 'nowhere': no such partition; use one"),
    "account": (("--account", "nobody"), "--account 'nobody': not one that you may charge; use"),
    "site": (("--site", "moon"), "--site 'moon': no such profile (there are: "),
    "time form": (("--time", "12:30"), "--time '12:30': not a time limit; write it as 24h"),
    "time": (("--partition", "brief", "--time", "1h"), "partition 'brief' has 2 at most"),
    "short": (("--time", "1m", "--site", "slow"), "leaves no time to train; ask for at least 11m"),
    "GPUs": (("--gpus-per-node", "3"), "--gpus-per-node = 3: partition 'test' has 2 at most"),
    "nodes": (("--nodes", "4"), "--nodes = 4: partition 'test' has 2 at most"),
    "cores": (("--cpus", "5"), "--ranks-per-node x --cpus = 5: partition 'test' has 4 at most"),
    "memory": (("--mem-gb", "8"), "--mem-gb = 8: partition 'test' has 7 at most"),
    "injection": (("--account", "a\n#SBATCH --uid=0"), "--account = 'a\\n#SBATCH --uid=0': not a"),
    "batch": (("--ranks-per-node", "3"), "train.global_batch_pairs = 8: not divisible by 3 ranks"),
    "pack": (("data.train=nowhere",), "/nowhere': no such folder; make one"),
    "network": (("model.name=iresnet51",), "model.name = 'iresnet51': no such backbone; did you"),
    "after": (("--after", "12; rm"), "--after = '12; rm': not a name; use the number of a job"),
    "job": (("--after", "4711"), "--after 4711: Slurm knows no such job"),
    "sbatch": (("--site", "odd"), "Slurm refuses the job: "),
    "reservation": (("--site", "reserved"), "Slurm refuses the job: "),
    "host": (("--exclude", "node[1"), "--exclude = 'node[1': not a name; use hosts as in node7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(world: World, case: str) -> None:
    words, expected = REFUSED[case]
    (world.root / "sites" / "slow.toml").write_text("signal_seconds = 600\n")
    (world.root / "sites" / "odd.toml").write_text('constraint = "nowhere"\n')
    (world.root / "sites" / "reserved.toml").write_text('reservation = "nowhere"\n')
    done = world.pairdistill(*world.words("refused", *words))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert not world.run("refused").root.exists()
    assert world.cluster.output("squeue", "-h", "-n", "pd-refused") == ""


def test_a_folder_whose_job_waits_is_refused(world: World) -> None:
    job = world.submit("owned", "train.steps=3", "--after", first_job(world))
    for more in ((), ("--resume",)):
        done = world.pairdistill(*world.words("owned", *more))
        assert done.returncode == 2
        assert f"job {job} (PENDING) owns it" in done.stderr
    world.cluster.output("scancel", job)


def first_job(world: World) -> str:
    """A job that waits for its time."""
    ask = ("--begin=now+1hour", "--parsable", "--wrap", "true")
    return world.cluster.output("sbatch", *ask)


def test_the_script_that_is_shown_is_the_one_submitted(world: World) -> None:
    words = ("--nodes", "2", "--mem-gb", "2", "--gpus-per-node", "1", "--after", first_job(world))
    shown = world.pairdistill(*world.words("shown", *words, "--dry-run"))
    assert shown.returncode == 0, shown.stderr
    assert not world.run("shown").root.exists()
    job = world.submit("shown", *words)
    (submitted,) = world.run("shown").jobs()
    assert submitted.script.read_text() == shown.stdout
    assert world.cluster.output("scontrol", "write", "batch_script", job, "-").strip() == (
        shown.stdout.strip()
    )
    world.cluster.output("scancel", job)


def test_nodes_are_left_out_and_shared_with_nobody(world: World) -> None:
    (world.root / "sites" / "alone.toml").write_text('account = "face"\nexclusive = true\n')
    words = ("--exclude", "node[2]", "--after", first_job(world))
    job = world.submit("picky", "--site", "alone", *words)
    shown = world.cluster.output("scontrol", "show", "job", job).split()
    assert {"ExcNodeList=node2", "OverSubscribe=NO"} <= set(shown)
    world.cluster.output("scancel", job)


def test_a_configuration_cannot_reach_the_script(world: World) -> None:
    """Newlines, quotes, `$()` and `;` in values: read by the job from a file, never by a shell."""
    evil = "a\"; touch /tmp/pd-pwned\n#SBATCH --uid=0\n$(touch /tmp/pd-pwned)`x`'"
    shown = world.pairdistill(*world.words("evil", f"checkpoint.best_metric={evil}", "--dry-run"))
    assert shown.returncode == 0, shown.stderr
    assert "pwned" not in shown.stdout
    for name in ("a\nb", "a%jb", "a\\b"):
        done = world.pairdistill(*world.words("evil", f"run.dir={world.root}/{name}", "--dry-run"))
        assert done.returncode == 2
        assert "error: run.dir = " in done.stderr
