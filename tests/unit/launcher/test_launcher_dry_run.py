"""`submit --dry-run` on a machine where no cluster answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from submitting import run_of, submit

from distill.errors import UserError


def test_a_script_can_be_shown_without_slurm(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(config.parent))
    submit(config, gpus_per_node=4, site="example", dry_run=True)
    shown, said = capsys.readouterr()
    assert "#SBATCH --partition=gpu\n" in shown
    assert "module load cuda/13.0 ||" in shown
    assert shown.endswith('"$status"\n')
    assert said.startswith("warning: sbatch is not on PATH: ")
    assert not run_of(config).root.exists()
    with pytest.raises(UserError, match="--gpus-per-node = 9: partition 'gpu' has 8 at most"):
        submit(config, gpus_per_node=9, site="example", dry_run=True)
    with pytest.raises(UserError, match="--account 'mine': not one that you may charge"):
        submit(config, account="mine", site="example", dry_run=True)


def test_a_script_can_be_shown_where_the_clients_have_no_cluster(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a laptop with Slurm's clients; the run may have been submitted elsewhere before."""
    fake.cluster()
    submit(config)
    lost = "Could not establish a configuration source"
    for client in ("sinfo", "sacct", "squeue", "sacctmgr"):
        fake.answers(client, errors=f"{client}: error: failed\n{client}: fatal: {lost}\n", status=1)
    capsys.readouterr()
    submit(config, account="face", partition="gpu", resume=True, dry_run=True)
    shown = capsys.readouterr()
    assert "#SBATCH --partition=gpu\n" in shown.out
    assert f"warning: sinfo -a -h -o %P: sinfo: fatal: {lost}. Not asked: " in shown.err
    assert "profile" not in shown.err
    submit(config, gpus_per_node=4, site="example", resume=True, dry_run=True)
    assert "(they fit the profile --site example)" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"{lost}; see `pairdistill doctor --slurm`"):
        submit(config, resume=True)
