"""What the doctor finds on a node, from what a job there says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

import distill
from distill.cli.doctor import doctor_command
from distill.doctor.machine import Check
from distill.errors import UserError
from launcher.doctor import node_checks, slurm_checks
from launcher.resources import Resources
from launcher.site import Site

ROW = {"name": "native loss", "ok": False, "found": "none", "fix": "build it", "needed": True}


def answering(fake: FakeSlurm) -> None:
    fake.cluster()
    fake.answers("scontrol", "Slurmctld(primary) at head is UP\n")
    fake.answers("scancel")
    fake.answers("sacct")


def test_a_node_is_asked_in_a_job_and_its_rows_are_named_so(fake: FakeSlurm) -> None:
    answering(fake)
    fake.answers("srun", json.dumps({"checks": [ROW]}), status=1)
    *others, node = slurm_checks(job=True)
    assert node == Check("node: native loss", False, "none", "build it", True)
    assert all(check.ok for check in others), others
    assert {"--nodes=1", "--ntasks=1", "doctor", "--json"} <= set(fake.calls("srun"))
    assert slurm_checks(job=False) == others


SITE = """
partition = "gpu"
constraint = "a100|h100"
gpu_type = "h100"
exclude = "node[1-2]"
modules_init = "{root}/it's.sh"
modules = ["cuda/13.0"]
container = ["env", "BOXED=in a box"]
python = "{root}/its python"
[variables]
GREETING = "it's; $(here)"
"""
NODE = f"""#!{sys.executable}
import json, os, sys
told = [os.environ[name] for name in ("LOADED", "BOXED", "GREETING")]
found = told + sys.argv[1:] + [os.environ["PYTHONPATH"].split(":")[0]]
print(json.dumps({{"checks": [{{"name": "told", "ok": True, "found": json.dumps(found)}}]}}))
"""
SRUN = """#!/bin/sh
for word; do printf '%s\\n' "$word"; done > '@FOLDER@/srun.calls'
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


def test_a_node_is_examined_as_ranks_would_find_it(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an srun that starts what it is told to: modules, variables, container and Python."""
    answering(fake)
    monkeypatch.setenv("PAIRDISTILL_SITES", str(tmp_path))
    (tmp_path / "here.toml").write_text(SITE.format(root=tmp_path))
    (tmp_path / "it's.sh").write_text('module() { export LOADED="$2"; echo "$2 is loaded"; }')
    for path, text in ((tmp_path / "its python", NODE), (fake.folder / "srun", SRUN)):
        path.write_text(text.replace("@FOLDER@", str(fake.folder)))
        path.chmod(0o755)
    *_, node = slurm_checks(job=True, site="here", gpus=2, account="face")
    assert node.name == "node: told", node
    sources = str(Path(distill.__file__).parents[1])
    told = ["cuda/13.0", "in a box", "it's; $(here)", "-m", "distill", "doctor", "--json", sources]
    assert json.loads(node.found) == told
    asked = {"--partition=gpu", "--account=face", "--gpus-per-node=h100:2"}
    asked |= {"--constraint=a100|h100", "--exclude=node[1-2]", "--nodes=1", "--ntasks=1"}
    assert asked <= set(fake.calls("srun"))
    slurm_checks(job=True, site="here", partition="other")
    assert "--partition=other" in fake.calls("srun")
    assert not [word for word in fake.calls("srun") if word.startswith("--gpus")]


def test_modules_that_cannot_be_loaded_are_told(fake: FakeSlurm) -> None:
    answering(fake)
    (row,) = node_checks(Resources(), Site(modules=["cuda/13.0"]))
    assert "srun: error: the job could not be prepared" in row.found


def test_words_about_a_node_need_a_job() -> None:
    with pytest.raises(UserError, match="--gpus without --job"):
        doctor_command(slurm=True, gpus=1)
    with pytest.raises(UserError, match="--site 'moon': no such profile"):
        slurm_checks(job=True, site="moon")


@pytest.mark.parametrize("answer", ["", "no JSON", "{}"])
def test_a_node_that_does_not_answer_is_a_row(fake: FakeSlurm, answer: str) -> None:
    answering(fake)
    fake.answers("srun", answer, errors="srun: error: No.\n", status=1)
    (row,) = node_checks(Resources(), Site())
    assert (row.name, row.ok) == ("a node", False)
    assert row.found.startswith("no answer: ")
    assert ("srun: srun: error: No." in row.found) == (not answer)


def test_a_cluster_without_an_accounting_is_told_and_used(fake: FakeSlurm) -> None:
    answering(fake)
    fake.answers("sacct", errors="Slurm accounting storage is disabled\n", status=1)
    fake.answers("srun", json.dumps({"checks": [ROW]}))
    checks = {check.name: check for check in slurm_checks(job=True)}
    assert (checks["accounting"].ok, checks["accounting"].needed) == (False, False)
    assert "node: native loss" in checks
