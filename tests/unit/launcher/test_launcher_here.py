"""Jobs on this machine, in submitit's own processes: the GPUs they see, how long they may run."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from submitit.core.utils import FailedJobError
from submitting import submit

from distill.errors import UserError
from distill.run_dir import JobDir
from launcher.commands.options import Asked, Cluster
from launcher.here import make_local_executor
from launcher.resources import Resources
from launcher.site import Site

GPUS = "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize("shown", ["3,1", "", None], ids=["chosen", "hidden", "all"])
def test_a_job_sees_the_gpus_that_its_caller_sees_and_has_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str | None
) -> None:
    if shown is None:
        monkeypatch.delenv(GPUS, raising=False)
    else:
        monkeypatch.setenv(GPUS, shown)
    wanted = Asked().resources(Site(), cluster=Cluster.LOCAL)
    executor = make_local_executor(JobDir(tmp_path / "it's a job"), wanted, Site())
    told = executor.submit(subprocess.check_output, ["env", "-0"]).result().decode()
    found = dict(line.split("=", 1) for line in told.split("\0") if line)
    assert found.get(GPUS) == shown
    assert int(found["SUBMITIT_LOCAL_TIMEOUT_S"]) > 50 * 365 * 86_400


def test_a_job_with_a_limit_is_told_as_long_before_it_as_the_site_says(tmp_path: Path) -> None:
    """Five seconds after its start, when it listens on a slow machine too.

    submitit's own warning would come 30 s before the end.
    """
    site, wanted = Site(signal_seconds=10), Resources(time_min=0.25)
    job = make_local_executor(JobDir(tmp_path), wanted, site).submit(time.sleep, 60)
    began = time.monotonic()
    with pytest.raises(FailedJobError, match="not requeued because: timed-out"):
        job.result()
    assert time.monotonic() - began > 1


def test_a_limit_that_leaves_no_time_to_train_is_refused(config: Path) -> None:
    with pytest.raises(UserError, match=r"^--time 2m: the job is told to save 120 s before"):
        submit(config, cluster=Cluster.LOCAL, time="2m")
    assert Asked().resources(Site()).time_min == 24 * 60, "on a cluster there is always one"
