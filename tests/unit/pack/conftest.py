"""A small pack of drawn images, shared by the tests of this room."""

import sys
from pathlib import Path

import numpy as np
import pytest

from distill.data.ffcv_import import import_ffcv
from distill.data.pack_writer import EncodedPair, write_pack

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
from single_packs import COUNTS, encoded, single, write_singles

import_ffcv()  # before any test module imports it in the slow way

COUNT, PEOPLE, KINDS = 53, 5, ("blur", "eyes")


def encoded_pairs(count: int):
    for i in range(count):
        yield EncodedPair(encoded(2 * i), encoded(2 * i + 1), i % PEOPLE, i % len(KINDS))


@pytest.fixture(scope="session")
def jpeg_pairs():
    return list(encoded_pairs(COUNT))


@pytest.fixture(scope="session")
def make_pack(jpeg_pairs):
    def make(folder, count=COUNT, **options):
        names = [f"person {i}" for i in range(PEOPLE)]
        pairs = jpeg_pairs[:count]
        return write_pack(folder, pairs, count, identities=names, kinds=KINDS, **options)

    return make


@pytest.fixture(scope="session")
def small_pack(make_pack, tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("packs") / "small")


@pytest.fixture(scope="session")
def sharded(make_pack, tmp_path_factory):
    """The same pairs as `small_pack`, in several files."""
    pack = make_pack(tmp_path_factory.mktemp("packs") / "sharded", shard_bytes=200_000)
    assert len(pack.manifest.shards) >= 4
    return pack


@pytest.fixture(scope="session")
def singles():
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS).tolist()
    return [single(number, label) for number, label in enumerate(labels)]


@pytest.fixture(scope="session")
def online(singles, tmp_path_factory):
    """Photographs alone, in several files."""
    folder = tmp_path_factory.mktemp("packs") / "online"
    made = write_singles(folder, [pair for pair, _ in singles], shard_bytes=50_000)
    assert len(made.manifest.shards) > 2
    return made


@pytest.fixture(scope="session")
def make_large_pack(make_pack):
    """A pack of some 40 MB, whose images are of any bytes."""

    def make(folder):
        rng = np.random.default_rng(0)
        pairs = (EncodedPair(rng.bytes(20_000), rng.bytes(20_000), 0, 0) for _ in range(1000))
        return write_pack(folder, pairs, 1000, identities=["a"], kinds=["blur"])

    return make
