"""One Slurm for all tests here, and a small training that takes some seconds on two ranks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from cluster import Cluster, reason_to_skip
from world import TWO, World, make_world, start_commands


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = reason_to_skip()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with start_commands(cluster) as commands:
        root = tmp_path_factory.mktemp('it\'s a "run" $(folder)')
        yield make_world(cluster, commands, root)


@pytest.fixture(scope="session")
def reference(world: World) -> World:
    """An undisturbed run on two nodes with a rank each; all others must end as it did."""
    job = world.submit("reference", *TWO)
    world.finish(job)
    assert world.run("reference").complete.exists(), world.last_words()
    return world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the cluster and the jobs wrote."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.when == "call" and report.failed and world is not None:
        report.sections.append(("jobs", world.last_words()))
        report.sections.append(("cluster", world.cluster.logs()))
    return report
