"""Whole jobs on two nodes."""

from __future__ import annotations

import pytest
from world import World

TWO = ("--nodes", "2", "--ranks-per-node", "1")
FOUR = ("--nodes", "2", "--ranks-per-node", "2")


@pytest.fixture(scope="session")
def reference(world: World) -> World:
    """An undisturbed run on two nodes with a rank each."""
    job = world.submit("reference", *TWO)
    world.finish(job)
    assert world.run("reference").complete.exists(), world.last_words()
    return world


def test_it_trains(reference: World) -> None:
    print(reference.log("reference"))
    assert len(reference.metrics("reference")) == 120
