"""A small held-out pack and a network, made once."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from drawn_people import PEOPLE, make_config, make_model, make_pack


@pytest.fixture(scope="session")
def labels():
    """Photographs in no order of people, a different number of each."""
    return np.random.default_rng(4).permutation(np.repeat(np.arange(7), [5, 4, 3, 6, 2, 1, 4]))


@pytest.fixture(scope="session")
def pack(tmp_path_factory, labels):
    return make_pack(tmp_path_factory.mktemp("packs") / "evaluation", labels)


@pytest.fixture(scope="session")
def model():
    return make_model()


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Exported, as a run leaves them."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    about = {"format": "pairdistill-weights-1", "step": "12", "run_id": "r"}
    about |= {"config": json.dumps(make_config().model_dump()), "identities": json.dumps(PEOPLE)}
    save_file(make_model().state_dict(), path, about)
    return path
