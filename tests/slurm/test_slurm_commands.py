"""Following jobs, sweeping, and the doctor, with a real accounting behind them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from world import World


def test_a_sweep_of_four_and_one_of_them_again(world: World) -> None:
    """Two at a time; one that waits is cancelled, and submitted again alone."""
    folder, toml = world.root / "a sweep", str(world.root / "run.toml")
    words = ("loss.temperature=1,4", "loss.similarity=kl,mmd", "--site", "here", "--time", "10m")
    begun = world.pairdistill(
        "sweep", toml, *words, "--dir", str(folder), "--parallel", "2", "train.steps=4"
    )
    assert begun.returncode == 0, begun.stderr
    array = begun.stdout.split()[2]
    world.cluster.output("scancel", f"{array}_3")
    waits = ("squeue", "-h", "-j", array, "-t", "pending,running,completing")
    world.until(lambda: not world.cluster.output(*waits), "the end of the array")
    first = results(world, str(folder))
    # Slurm keeps nothing of a run that was cancelled while it waited.
    assert [run["state"] for run in first] == ["COMPLETED"] * 3 + ["UNKNOWN"]
    assert [run["point"] for run in first] == [
        {"loss.temperature": t, "loss.similarity": s, "train.steps": 4}
        for t in (1, 4)
        for s in ("kl", "mmd")
    ]
    assert len({run["value"] for run in first[:3]}) == 3
    again = world.pairdistill("sweep", str(folder), "--resubmit")
    assert again.returncode == 0, again.stderr
    assert "1 run(s)" in again.stdout
    world.finish(again.stdout.split()[2])
    assert [run["state"] for run in results(world, str(folder))] == ["COMPLETED"] * 4
    table = world.pairdistill("sweep", str(folder), COLUMNS="120")
    assert "loss.similarity" in table.stdout
    assert (folder / "sweep.png").stat().st_size > 1000
    assert world.pairdistill("sweep", str(folder), "--resubmit").stdout.endswith("has failed\n")


def results(world: World, folder: str) -> list[dict[str, object]]:
    shown = world.pairdistill("sweep", folder, "--json")
    assert shown.returncode == 0, shown.stderr
    found: list[dict[str, object]] = json.loads(shown.stdout)
    return found


def test_status_and_logs(world: World) -> None:
    """With a setting that would be a command or a line of the script, if anything read it so."""
    evil = f"\"'; touch pwned\n#SBATCH --uid=0\n$(touch {world.root}/pwned)`touch pwned` \\"
    job = world.submit("followed", "train.steps=4", f"checkpoint.best_metric={evil}")
    followed = world.pairdistill("status", str(world.run("followed").root), "--json")
    (before,) = json.loads(followed.stdout)
    assert before["job"] == job
    assert before["state"] in ("PENDING", "RUNNING")
    log = world.pairdistill("logs", str(world.run("followed").root), "-f")  # until it ends
    assert "4 steps done" in log.stdout
    assert "pairdistill: start 0 ended after step 4: complete" in log.stdout
    world.finish(job)
    followed = world.pairdistill("status", str(world.run("followed").root), "--json")
    (after,) = json.loads(followed.stdout)
    numbers = (after["state"], after["step"], after["total_steps"], after["starts"])
    assert numbers == ("COMPLETED", 4, 4, 1)
    assert after["loss"] == world.metrics("followed")[-1]["loss/total"]
    assert after["checkpoints"] == [4]
    config = tomllib.loads(world.run("followed").config_toml.read_text())
    assert config["checkpoint"]["best_metric"] == evil, "read as it was meant"
    assert not list(world.root.rglob("pwned"))
    assert not Path("pwned").exists()
    missing = world.pairdistill("logs", str(world.run("followed").root), "--rank", "5")
    assert missing.returncode == 2
    assert f"there are {job}_0_log.out" in missing.stderr


def test_the_doctor_looks_at_slurm_and_at_a_node(world: World) -> None:
    (world.root / "sites" / "plain.toml").write_text('account = "face"\n')
    words = ("--site", "plain", "--gpus", "1", "--partition", "test")
    seen = world.pairdistill("doctor", "--slurm", "--job", "--json", *words)
    checks = {check["name"]: check for check in json.loads(seen.stdout)["checks"]}
    for name in ("Slurm's commands", "controller", "partitions", "accounting", "site profiles"):
        assert checks[name]["ok"], checks[name]
    assert "test* up 2 nodes gpu:2" in checks["partitions"]["found"]
    assert checks["node: native loss"]["ok"]
    assert checks["node: several ranks"]["ok"]
