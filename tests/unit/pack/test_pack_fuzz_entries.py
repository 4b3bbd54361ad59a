"""Damaged entries, tables and images of packs that are open: no crash, no image of another pair.

As a disk that goes bad under a run, or in packs too large to be looked through when opened.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from distill.data.beton import ALLOCATION, LAYOUTS
from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.manifest import read_pack
from distill.data.pack_writer import EncodedPair, write_pack
from distill.data.second.online import face_row

pytestmark = pytest.mark.slow

CASES, COUNT = 150, 40

READING = '''
import sys
from pathlib import Path
import numpy as np
from distill.config.tree import DataConfig
from distill.data import manifest
from distill.data.augment import NONE
from distill.data.ffcv_import import import_ffcv
from distill.data.loader import online_rows
from distill.data.reading import ReaderOptions
from distill.data.shard_files import ShardFiles
from distill.data.training_set import TrainingSet
manifest.CHECKED_PAIRS = 0
import_ffcv()
from distill.data import ffcv_reader, online_rows as making
made = []
ffcv_reader.raise_if_corrupt = lambda index, ids, statuses: made.append(statuses.copy())
making.OnlineRows.raise_if_corrupt = lambda *arguments: made.append(arguments[-1].copy())

def read(work, second, images):
    """Every damage in turn, read, and undone."""
    train = TrainingSet.of([manifest.read_pack(work / "pack")])
    online = online_rows(train, DataConfig(second=second), 0) if images == 2 else None
    shard = train.index.shards[0]
    whole = (work / "pristine").read_bytes()
    damages = np.load(work / "damages.npz")
    keys = np.stack([np.zeros(len(train.index), int), np.arange(len(train.index))], axis=1)
    options = ReaderOptions(0, NONE, threads=2, online=online, images_per_pair=images)
    reader = ffcv_reader.FFCVReader(ShardFiles(train.index), options)
    found = {"first": [], "label": [], "status": []}
    for places, values in zip(damages["places"], damages["values"]):
        with open(shard.path, "r+b") as file:
            for place, value in zip(places.tolist(), values.tolist()):
                file.seek(place)
                file.write(bytes([value]))
        made.clear()
        batches = list(reader.start(iter([keys])))
        found["first"].append(batches[0].first.numpy())
        found["label"].append(batches[0].labels.numpy())
        found["status"].append(made[0])
        with open(shard.path, "r+b") as file:
            for place in places.tolist():
                file.seek(place)
                file.write(whole[place:place + 1])
    reader.close()
    np.savez(work / "found.npz", **{name: np.stack(parts) for name, parts in found.items()})

for way in sys.argv[2:]:
    second, images = way.split()
    read(Path(sys.argv[1], way), second, int(images))
'''


def picture(seed):
    small = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    return simplejpeg.encode_jpeg(large, quality=90, colorsubsampling="444")


def written(folder, second):
    """A pack of pairs, or of photographs alone; nobody's pictures are alike."""
    pairs = []
    for i in range(COUNT):
        jpeg = picture(2 * i)
        face = face_row(AlignedFace(simplejpeg.decode_jpeg(jpeg), TEMPLATE.astype(np.float32)))
        other = picture(2 * i + 1) if second == "packed" else b""
        pairs.append(EncodedPair(jpeg, other, i // 10, 0, face if second == "online" else b""))
    more = {"kind_chances": {"blur": 1.0}} if second == "online" else {}
    return write_pack(folder, pairs, COUNT, identities=list("abcd"), kinds=["blur"],
                      second=second, **more)  # fmt: skip


def damages(pack, second, rng):
    """Where each case overwrites up to 12 bytes, and with what: entries, table, images."""
    layout = LAYOUTS["singles" if second == "online" else "pairs"]
    shard = pack.index.shards[0]
    regions = [
        (layout.metadata_start, COUNT * layout.row.itemsize),
        (shard.table, COUNT * len(layout.images) * ALLOCATION.itemsize),
        (int(shard.pointers[0, 0]), int(shard.sizes.sum())),
    ]
    places, values = np.zeros((CASES, 12), np.int64), np.zeros((CASES, 12), np.uint8)
    for case in range(CASES):
        start, size = regions[case % 3]
        near = start + int(rng.integers(size))
        spread = 12 if rng.random() < 0.5 else size
        places[case] = np.clip(near + rng.integers(0, spread, 12), start, start + size - 1)
        values[case] = rng.choice([0, 255, int(rng.integers(256))], 12)
    return {"places": places, "values": values}


WAYS = [("packed", 2), ("online", 2), ("packed", 1), ("online", 1)]
"""Layout of the pack, and images of a pair that are asked for."""


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """The folder with a folder of each way, all read by one process, which imports once."""
    folder = tmp_path_factory.mktemp("fuzzed")
    ways = [f"{second} {images}" for second, images in WAYS]
    for way, (second, _) in zip(ways, WAYS, strict=True):
        (folder / way).mkdir()
        pack = written(folder / way / "pack", second)
        shutil.copy(pack.index.shards[0].path, folder / way / "pristine")
        np.savez(folder / way / "damages.npz", **damages(pack, second, np.random.default_rng(3)))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", READING, str(folder), *ways]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr  # a signal would be negative
    return folder


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]} {way[1]}")
def fuzzed(request, read):
    second, images = request.param
    folder = read / f"{second} {images}"
    shard = read_pack(folder / "pack").index.shards[0].path
    assert shard.read_bytes() == (folder / "pristine").read_bytes()
    return second, images, np.load(folder / "found.npz")


def test_the_process_lives_and_damage_is_seen_in_most_cases(fuzzed):
    second, images, found = fuzzed
    assert found["status"].shape == (CASES, COUNT, images)
    hit = found["status"].any(axis=(1, 2))
    unread = 1 / 6 if (second, images) == ("packed", 1) else 0.0  # half of the images' bytes
    assert hit.mean() > 0.9 - unread  # the rest hit bytes that no reader looks at
    assert not found["status"].all(axis=(1, 2)).any()


def test_what_is_called_good_is_the_own_image_and_person(fuzzed):
    second, asked, found = fuzzed
    expected = [simplejpeg.decode_jpeg(picture(2 * i), fastdct=True) for i in range(COUNT)]
    images = np.stack(expected).transpose(0, 3, 1, 2)
    for status, first, label in zip(*(found[k] for k in ("status", "first", "label")), strict=True):
        good = ~status.any(axis=1)
        if (second, asked) == ("online", 2) and not good.all():
            continue  # nothing is made of a batch with damage
        assert np.array_equal(first[good], images[good])
        assert np.array_equal(label[good], np.arange(COUNT)[good] // 10)
