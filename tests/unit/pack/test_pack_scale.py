"""Packs far larger than this machine: an index of 40 million pairs, and a bounded page cache."""

import ctypes
import json
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

from distill.data.batch import OrderState
from distill.data.beton import ALLOCATION, PAGE_SIZE, PAIRS, head_bytes
from distill.data.manifest import shard_name
from distill.data.order import Blocks, Line, Order, Share
from distill.data.shard_files import ShardFiles, Windows

PAIRS_A_SHARD, SHARDS, PEOPLE = 4_000_000, 10, 2_000_000

OPENING = """
import json, sys, time
began = time.perf_counter()
from types import SimpleNamespace
from distill.config.tree import DataConfig
from distill.data.loader import make_train_loader
from distill.data.manifest import read_pack
from distill.errors import UserError
imported = time.perf_counter()

def kibibytes(name):
    # Of this program alone: getrusage counts what its parent had when it was started, too.
    return int(open("/proc/self/status").read().split(f"{name}:")[1].split()[0])

held = kibibytes("VmRSS")
data = DataConfig(shuffle=sys.argv[2])
ranks = SimpleNamespace(rank=0, world_size=8)
loader = make_train_loader(
    read_pack(sys.argv[1]), data, seed=0, ranks=ranks, batch_pairs_per_rank=64
)
try:
    next(loader)
    said = "no error"
except UserError as error:
    said = str(error)
grown = (kibibytes("VmHWM") - held) * 1024
print(json.dumps([time.perf_counter() - imported, grown, said]))
loader.close()
"""


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """40 million pairs of 2 million people in files full of holes: only headers are stored."""
    folder = tmp_path_factory.mktemp("huge")
    data = PAIRS_A_SHARD * 20_000 // PAGE_SIZE * PAGE_SIZE
    table = PAIRS.data_start(PAIRS_A_SHARD, PAGE_SIZE) + data
    size = table + 2 * PAIRS_A_SHARD * ALLOCATION.itemsize
    shards = []
    for number in range(SHARDS):
        with (folder / shard_name(number)).open("wb") as file:
            file.write(head_bytes(PAIRS, PAIRS_A_SHARD, PAGE_SIZE, table))
            file.truncate(size)
        facts = {"name": shard_name(number), "pairs": PAIRS_A_SHARD, "bytes": size}
        shards.append(facts | {"sha256": "0" * 64})
    pairs = PAIRS_A_SHARD * SHARDS
    manifest = {
        "format": 2,
        "purpose": "train",
        "pairs": pairs,
        "photographs": pairs,
        "identities": [f"person {i}" for i in range(PEOPLE)],
        "kinds": ["blur"],
        "pairs_per_identity": [pairs // PEOPLE] * PEOPLE,
        "pairs_per_kind": {"blur": pairs},
        "shards": shards,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_40_million_pairs_are_opened_in_less_than_600_megabytes(huge, shuffle):
    """The first batch is asked for; its entries are holes, which the reader names. Memory counts
    from what the imports have, most of a gigabyte where torch is one for CUDA. The time is printed,
    not judged: the machine may be busy."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", OPENING, str(huge), shuffle]
    done = subprocess.run(command, check=True, env=env, capture_output=True, text=True, timeout=600)
    seconds, grown, said = json.loads(done.stdout.splitlines()[-1])
    print(f"{shuffle}: {seconds:.1f} s after the imports, {grown / 1e6:.0f} MB")
    assert "its entry is damaged" in said
    assert grown < 6e8


def resident(path):
    """Bytes of a file that are in the page cache."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        found = (ctypes.c_ubyte * pages)()
        address = ctypes.c_void_p(view.ctypes.data)
        assert libc.mincore(address, ctypes.c_size_t(size), found) == 0
        del view
    return sum(byte & 1 for byte in found) * mmap.PAGESIZE


def test_what_is_behind_leaves_the_page_cache(make_large_pack, tmp_path):
    """Read in windows of a tenth of the pack: never more than a few of them stay in memory."""
    pack = make_large_pack(tmp_path / "pack")
    (shard,) = pack.index.shards
    whole = shard.path.stat().st_size
    files = ShardFiles(pack.index)
    os.posix_fadvise(files.handles[0], 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(shard.path) > whole // 10:
        files.close()
        pytest.skip("this file system keeps its pages whatever it is told")
    n = pack.manifest.pairs
    line = Line(Order(0, n, Blocks(n // 100, 10)), OrderState(0, 0), Share(0, 1), n // 100)
    most = 0
    for number, keys in enumerate(Windows(files, line).batches()):
        for pair in keys[:, 1].tolist():
            for region in files.regions(pair, pair):
                os.pread(*(region.file, region.size, region.start))
        most = max(most, resident(shard.path))
        if number == 150:
            break
    files.close()
    assert whole // 20 < most < whole * 0.6
