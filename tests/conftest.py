"""Shared by all tests: one thread a process (two cores, many workers), visible skips and errors.

What a test leaves behind does not slow those after it in the same process: neither the threads that
a command gave torch, nor the objects that are there to stay, which the collector of garbage would
walk over again and again.

Those that need a GPU have all cores: one after another, they wait for float64 references.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING

if os.environ.get("PAIRDISTILL_TEST_GPU") != "1":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Threads that wait for each other sleep: spinning, they hold up the process they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts background jobs with Ctrl-C ignored, which the programs under test would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import pytest
import torch

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

# No test fails because a machine is busy: an example may take as long as it takes.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # so that no worker ends with one of them
    if torch.cuda.is_available():
        return
    if os.environ.get("PAIRDISTILL_TEST_GPU") == "1":
        raise pytest.UsageError(
            f"PAIRDISTILL_TEST_GPU=1, and torch {torch.__version__} sees no CUDA device: check "
            f"`nvidia-smi`, CUDA_VISIBLE_DEVICES, and that the driver serves this torch, which is "
            f"built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'the CPU alone'}"
        )
    skip = pytest.mark.skip(reason="needs a CUDA device; none is visible here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


THREADS = torch.get_num_threads()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A command that was run in this process has given torch as many threads as there are cores."""
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="module", autouse=True)
def few_objects_to_collect() -> None:
    """What is there before a file is there to stay: modules, all tests, what was compiled."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: WorkerController) -> None:
    """A file that cannot be imported ends the run before its first test, as without workers.

    Workers know nothing of pytest's own rule for that, and would say it after all other tests.
    """
    session = node.config.pluginmanager.get_plugin("session")
    if session.testsfailed and not node.config.option.continue_on_collection_errors:
        raise session.Interrupted(f"errors during collection: {session.testsfailed}")
