"""A disk that is full while a job is handed over, before sbatch was asked and after; or later.

The kernel refuses to write more than some bytes of a file, as it does where no room is.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import FakeSlurm
from submitting import run_of, submit, sweep

from distill.errors import UserError
from distill.run_dir import RunDir
from launcher import submit as submitting
from launcher import sweep as sweeping
from launcher.status import RunStatus
from launcher.sweep import Result, Sweep
from launcher.sweep_picture import draw

FULL_FROM = f"""#!/bin/sh
'{sys.executable}' -c 'import resource as r, sys
r.prlimit(int(sys.argv[1]), r.RLIMIT_FSIZE, (10, r.getrlimit(r.RLIMIT_FSIZE)[1]))' $PPID
"""


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Files may have so many bytes, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(most: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def asked(
    config: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, limited: Callable[[int], None]
) -> Callable[[Callable[[], None], int], str]:
    """What is said where the disk is full from the handing over on; then there is room again."""
    fake.cluster()
    hand_over = submitting.hand_over

    def told(work: Callable[[], None], most: int) -> str:
        def late(*given: Any) -> list[str]:
            limited(most)
            return hand_over(*given)

        with monkeypatch.context() as patches, pytest.raises(UserError) as error:
            patches.setattr(submitting, "hand_over", late)
            patches.setattr(sweeping, "hand_over", late)
            work()
        limited(resource.RLIM_INFINITY)
        return str(error.value)

    return told


@pytest.mark.parametrize("most", [10, 700])  # too few for what submitit pickles; for the script
def test_before_sbatch_is_asked_nothing_is_left_and_it_can_be_tried_again(
    config: Path, fake: FakeSlurm, asked: Callable[[Callable[[], None], int], str], most: int
) -> None:
    folder = config.parent / "sweep"
    works = (lambda: submit(config), lambda: sweep(config, ["loss.weight=1,2"], folder=folder))
    roots = run_of(config).root, folder
    for work, root in zip(works, roots, strict=True):
        said = asked(work, most)
        assert said.startswith(f"{root}/jobs/0001: disk full (File too large); free some space")
        assert not root.exists()
        assert not fake.calls("sbatch")
    for work, root in zip(works, roots, strict=True):
        work()
        assert RunDir(root).jobs()[0].script.exists()


def test_after_sbatch_has_answered_the_job_is_named_and_keeps_its_folders(
    config: Path, fake: FakeSlurm, asked: Callable[[Callable[[], None], int], str]
) -> None:
    script = fake.folder / "sbatch"
    script.write_text(FULL_FROM + script.read_text().removeprefix("#!/bin/sh\n"))
    folder = config.parent / "sweep"
    words = "job 12 was submitted, which its folder does not know: "
    said = asked(lambda: submit(config), resource.RLIM_INFINITY)
    assert said.startswith(f"{words}{run_of(config).root}/jobs/0001/script.sh: disk full")
    said = asked(lambda: sweep(config, ["loss.weight=1,2"], folder=folder), resource.RLIM_INFINITY)
    assert said.startswith(f"{words}{folder}/jobs/0001/script.sh: disk full")
    for run in (run_of(config), *Sweep.read(folder).runs):
        assert run.jobs()[0].job_json.exists()


def test_the_picture_of_a_sweep_is_whole_or_that_of_before(
    tmp_path: Path, limited: Callable[[int], None]
) -> None:
    status = RunStatus("runs/000", "1", "COMPLETED", "", "", 4, 4, 1.0, {}, None, None, [4], 1)
    found = [Result({"loss.weight": weight}, status, weight) for weight in (1.0, 2.0)]
    path = tmp_path / "sweep.png"
    draw(found, "loss/total", path)
    before = path.read_bytes()
    limited(2000)
    with pytest.raises(UserError, match=r"sweep\.png: disk full \(File too large\); free some"):
        draw(found[:1], "loss/total", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
