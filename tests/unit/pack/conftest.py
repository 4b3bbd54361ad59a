"""A small pack of drawn images, and the tools to damage it."""

import cv2
import numpy as np
import pytest
import simplejpeg

from distill.data.pack_writer import EncodedPair, write_pack

COUNT, PEOPLE, KINDS = 53, 5, ("blur", "eyes")


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)


def jpeg(seed: int, quality: int = 90) -> bytes:
    return simplejpeg.encode_jpeg(picture(seed), quality=quality, colorsubsampling="444")


def pairs(count: int = COUNT):
    for i in range(count):
        yield EncodedPair(jpeg(2 * i), jpeg(2 * i + 1), i % PEOPLE, i % len(KINDS))


def make_pack(folder, count: int = COUNT):
    names = [f"person {i}" for i in range(PEOPLE)]
    return write_pack(folder, pairs(count), count, identities=names, kinds=KINDS)


@pytest.fixture(scope="session")
def small_pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("packs") / "small")
