"""A pool of workers of which one is lost at the worst moment."""

from __future__ import annotations

import os
import signal
import struct
from multiprocessing import active_children, current_process

import pytest

from distill.data.workers import team
from distill.errors import UserError


def dies_in_the_middle_of_a_result(task: int) -> int:
    """As by the kernel's killer of what takes too much memory, while a long result is written."""
    if task == 0:
        results = current_process()._args[1]
        os.write(results._writer.fileno(), struct.pack("!i", 1 << 20) + b"the rest never comes")
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.timeout(60)
def test_a_worker_that_dies_in_the_middle_of_a_result_is_told() -> None:
    with team(2) as workers, pytest.raises(UserError, match="was killed by SIGKILL"):
        list(workers.do(dies_in_the_middle_of_a_result, range(8), name=str))
    assert active_children() == []


@pytest.mark.timeout(60)
def test_a_block_that_ends_before_a_lost_worker_was_noticed_ends() -> None:
    with team(2) as workers:
        results = workers.do(dies_in_the_middle_of_a_result, range(7, -1, -1), name=str)
        assert next(results) == (7, 7)
        for worker in active_children():
            worker.join(1)
    assert active_children() == []
