"""Networks, and a file of each kind, exported once."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from small_networks import ASKED, HEADS, Network, export


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    return {head: Network(tmp_path_factory.mktemp(head), head) for head in HEADS}


@pytest.fixture(scope="session")
def exported(tmp_path_factory, networks):
    """The file of a name, made when it is first asked for, and what the command said of it."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def make(name):
        head, *words = ASKED[name]
        done = export(networks[head].path, folder / name, *words)
        assert done.exit_code == 0, (name, done.exception, done.output)
        return folder / name, done.output

    return make


@pytest.fixture(scope="session")
def pixels():
    """Batches of images that are not those of the command's own check."""
    torch.manual_seed(5)
    return [torch.randint(0, 256, (n, 3, 112, 112), dtype=torch.uint8) for n in (1, 3, 8)]
