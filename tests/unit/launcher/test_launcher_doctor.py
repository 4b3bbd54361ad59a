"""What the doctor finds on a node, from what a job there says."""

from __future__ import annotations

import json

import pytest
from fake_slurm import FakeSlurm

from distill.doctor.machine import Check
from launcher.doctor import node_checks, slurm_checks

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


@pytest.mark.parametrize("answer", ["", "no JSON", "{}"])
def test_a_node_that_does_not_answer_is_a_row(fake: FakeSlurm, answer: str) -> None:
    answering(fake)
    fake.answers("srun", answer, errors="srun: error: No.\n", status=1)
    (row,) = node_checks()
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
