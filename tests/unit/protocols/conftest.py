"""A small set of templates in IJB's form, and a network, made once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
from written_ijb import write_ijb, write_weights


@pytest.fixture(scope="session")
def ijbc(tmp_path_factory):
    return write_ijb(tmp_path_factory.mktemp("sets") / "IJBC", "ijbc")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "model.safetensors")
