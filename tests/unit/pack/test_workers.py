"""A pool of workers of which one is lost at the worst moment."""

from __future__ import annotations

import os
import signal
import struct
import time
from multiprocessing import active_children, current_process
from pathlib import Path

import pytest

from distill.data.workers import team
from distill.errors import UserError


def dies_in_the_middle_of_a_result(task: int, when: Path) -> int:
    """As by the kernel's killer of what takes too much memory, while a long result is written."""
    if task == 0:
        while not when.exists():
            time.sleep(0.01)
        results = current_process()._args[1]
        os.write(results._writer.fileno(), struct.pack("!i", 1 << 20) + b"the rest never comes")
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.timeout(60)
def test_a_worker_that_dies_in_the_middle_of_a_result_is_told(tmp_path: Path) -> None:
    with team(2) as workers, pytest.raises(UserError, match="was killed by SIGKILL"):
        list(workers.do(dies_in_the_middle_of_a_result, range(8), tmp_path, name=str))
    assert active_children() == []


@pytest.mark.timeout(60)
def test_a_block_that_ends_before_a_lost_worker_was_noticed_ends(tmp_path: Path) -> None:
    with team(2) as workers:
        when = tmp_path / "now"
        results = workers.do(dies_in_the_middle_of_a_result, range(7, -1, -1), when, name=str)
        assert next(results) == (7, 7)
        when.touch()
        for worker in active_children():
            worker.join(1)
    assert active_children() == []
