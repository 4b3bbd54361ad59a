"""The end of a run on two real ranks and their watchdogs: one writes weights, the other waits."""

from __future__ import annotations

from pathlib import Path

from rank_processes import on_ranks

from distill.processes.watchdog import HUNG

SCRIPT = Path(__file__).with_name("end_rank_script.py")


def test_ranks_wait_for_one_that_writes_for_longer_than_a_rank_may_hang(tmp_path: Path) -> None:
    done = on_ranks(SCRIPT, tmp_path, "2.0", "slow", ranks=2)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "complete.json").exists()


def test_the_rank_that_hangs_while_it_writes_is_blamed_not_who_waits(tmp_path: Path) -> None:
    """Who waits has given fewer signs of progress."""
    done = on_ranks(SCRIPT, tmp_path, "2.0", "hangs", ranks=2)
    assert done.returncode == HUNG
    assert "error: rank 0 " in done.stderr and "in step 9, phase 'end'" in done.stderr
    assert "rank 1 (" not in done.stderr
