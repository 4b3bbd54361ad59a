"""Stop signals: remembered, agreed on, and a second Ctrl-C that does not wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from threading import Timer

import pytest

from distill.errors import UserError
from distill.processes.stop import StoppedEarly, StopRequests, agreed_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_is_remembered_and_nothing_else_happens(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequests() as stops:
        assert stops.flags == [0.0, 0.0, 0.0]
        os.kill(os.getpid(), number)
        assert agreed_signal(stops.flags) == number
        if number != signal.SIGINT:
            os.kill(os.getpid(), number)  # a second one changes nothing
        assert sum(stops.flags) == 1.0
    assert signal.getsignal(number) is before


def test_a_terminal_that_is_closed_asks_as_term_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with StopRequests() as stops:
            os.kill(os.getpid(), signal.SIGHUP)
            assert agreed_signal(stops.flags) == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        with StopRequests() as stops:
            os.kill(os.getpid(), signal.SIGHUP)
            assert agreed_signal(stops.flags) is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ranks_agree_from_the_sum_of_their_flags() -> None:
    assert agreed_signal([0.0, 0.0, 0.0]) is None
    assert agreed_signal([0.0, 3.0, 1.0]) == signal.SIGTERM
    assert agreed_signal([1.0, 1.0, 1.0]) == signal.SIGINT


def test_a_second_ctrl_c_leaves_at_once() -> None:
    code = """
import os, signal
from distill.processes.stop import StopRequests
with StopRequests():
    os.kill(os.getpid(), signal.SIGINT)
    print("still here", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("not here", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "still here\n")


@pytest.mark.parametrize("before", [True, False])
def test_work_with_nothing_to_save_is_cut_short(before: bool) -> None:
    """Also where it catches errors, and where the signal came before it began."""

    def work() -> None:
        assert not before
        try:
            time.sleep(60)
        except Exception as error:
            raise UserError("an error of the work") from error

    began = time.monotonic()
    with StopRequests() as stops:
        asking = Timer(0.0 if before else 0.1, os.kill, (os.getpid(), signal.SIGTERM))
        asking.start()
        if before:
            asking.join()
        with pytest.raises(StoppedEarly, match=r"^stopped by SIGTERM while it slept; ") as early:
            stops.ending(work, "while it slept")
        assert early.value.exit_status == 143
        assert stops.asked == signal.SIGTERM
    assert time.monotonic() - began < 10


def test_work_that_has_ended_is_followed_by_stops_that_are_only_remembered() -> None:
    with StopRequests() as stops:
        assert stops.ending(lambda: 3, "never") == 3
        with pytest.raises(UserError, match=r"^data$"):
            stops.ending(_fails, "never")
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.asked == signal.SIGTERM


def _fails() -> None:
    raise UserError("data")
