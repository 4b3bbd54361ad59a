"""Damaged JPEGs behind good checksums: the process lives, and no image is another's."""

import os
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from distill.data.pack_writer import EncodedPair, write_pack

CASES = 300

READING = """
import sys
import numpy as np
from distill.data.augment import NONE
from distill.data.ffcv_import import import_ffcv
from distill.data.manifest import read_pack
from distill.data.reading import ReaderOptions
from distill.data.shard_files import ShardFiles
import_ffcv()
from distill.data import ffcv_reader
ffcv_reader.raise_if_corrupt = lambda index, ids, statuses: found.append(statuses.copy())
found, first, second = [], [], []
pack = read_pack(sys.argv[1])
reader = ffcv_reader.FFCVReader(ShardFiles(pack.index), ReaderOptions(0, NONE, threads=2))
keys = np.stack([np.zeros(len(pack.index), int), np.arange(len(pack.index))], axis=1)
for batch in reader.start(iter(np.array_split(keys, 7))):
    first.append(batch.first.numpy())
    second.append(batch.second.numpy())
reader.close()
np.savez(sys.argv[2], status=np.concatenate(found), first=np.concatenate(first),
         second=np.concatenate(second))
"""


def mutated(jpeg, rng):
    """One of: bytes changed, cut short, a piece doubled, a marker changed, another image's form."""
    data = bytearray(jpeg)
    way = int(rng.integers(5))
    if way == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 30)):
            data[place] = rng.integers(256)
    elif way == 1:
        del data[int(rng.integers(1, len(data))) :]
    elif way == 2:
        start, stop = sorted(rng.integers(0, len(data), 2).tolist())
        data[start:start] = data[start:stop]
    elif way == 3:
        for place in rng.integers(0, min(600, len(data)), 8):  # headers and tables
            data[place] ^= 1 << int(rng.integers(8))
    else:
        side = int(rng.choice([8, 104, 120, 1000]))
        grey = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        sampling = str(rng.choice(["444", "420", "Gray"]))
        if sampling == "Gray":
            return simplejpeg.encode_jpeg(grey[..., :1].copy(), colorspace="GRAY")
        return simplejpeg.encode_jpeg(grey, quality=30, colorsubsampling=sampling)
    return bytes(data) or b"\0"


@pytest.fixture(scope="module")
def fuzzed(jpeg_pairs, tmp_path_factory):
    """What the reader made of pairs whose first image is damaged and whose second is good."""
    rng = np.random.default_rng(7)
    pairs = []
    for i in range(CASES):
        good = jpeg_pairs[i % len(jpeg_pairs)]
        pairs.append(EncodedPair(mutated(good.first, rng), good.second, 0, 0))
    folder = tmp_path_factory.mktemp("fuzzed")
    write_pack(folder / "pack", pairs, CASES, identities=["a"], kinds=["blur"])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", READING, str(folder / "pack"), str(folder / "found.npz")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr  # a signal would be negative
    return pairs, np.load(folder / "found.npz")


def test_most_damage_is_refused_and_only_in_its_own_image(fuzzed):
    _, found = fuzzed
    assert found["status"].shape == (CASES, 2)
    assert not found["status"][:, 1].any()
    assert set(found["status"][:, 0].tolist()) <= {0, 2}
    assert (found["status"][:, 0] == 2).mean() > 0.4


def test_what_is_accepted_is_what_the_library_decodes(fuzzed, jpeg_pairs):
    """Never pixels of the image before: also where the library only warns of the damage."""
    pairs, found = fuzzed
    for i, pair in enumerate(pairs):
        expected = simplejpeg.decode_jpeg(pair.second, fastdct=True).transpose(2, 0, 1)
        assert np.array_equal(found["second"][i], expected)
        if found["status"][i, 0] == 0:
            rgb = simplejpeg.decode_jpeg(pair.first, fastdct=True, strict=False)
            assert np.array_equal(found["first"][i], rgb.transpose(2, 0, 1))
