"""A training pack in which some photographs have a wrong name, and a network that knows people."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from misnamed import IDENTITIES, embeddings_of, make_config, make_model, make_pack, true_centres


@pytest.fixture(scope="session")
def misnamed(tmp_path_factory):
    """The pack, and the first pairs of photographs that have a wrong name."""
    return make_pack(tmp_path_factory.mktemp("packs") / "train")


@pytest.fixture(scope="session")
def save_weights(tmp_path_factory):
    """Writes weights as a run leaves them."""

    def save(name, weights, identities=IDENTITIES, **head):
        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        config = make_config(**head).model_dump()
        about = {"format": "pairdistill-weights-1", "step": "12", "run_id": "r"}
        about |= {"config": json.dumps(config), "identities": json.dumps(identities)}
        save_file({key: value.contiguous() for key, value in weights.items()}, path, about)
        return path

    return save


@pytest.fixture(scope="session")
def centres():
    """Three centres each, (C, K, D): noise, the person, somebody who is in no photograph."""
    generator = torch.Generator().manual_seed(3)
    true = true_centres()
    noise = torch.randn(2, *true.shape, generator=generator)
    return torch.stack([noise[0], 5 * true, noise[1]], dim=1)


@pytest.fixture(scope="session")
def weights(save_weights, centres):
    backbone = make_model().state_dict()
    named = {f"backbone.{key}": value for key, value in backbone.items()}
    return save_weights("three", named | {"head.weight": centres}, sub_centres=3)


@pytest.fixture(scope="session")
def seen(misnamed):
    """Embeddings of all photographs, all at once and by another way: (N, D) float64."""
    return embeddings_of(misnamed[0])
