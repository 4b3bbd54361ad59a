"""The rule that chooses a way through the GPU, over every device and shape: no GPU is needed.

`kernels/pair_loss_plan.h` makes no CUDA call; it is compiled alone and asked through ctypes.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = """
#include "pair_loss_plan.h"
#include <cstring>
using namespace pairdistill::cuda;
extern "C" int plan(const int64_t* d, const int64_t* c, const char* wish, int64_t* out, char* why) {
  try {
    const Plan p = plan_of(CallShape{c[0], c[1], c[2], c[3] != 0, c[4] != 0},
                           DeviceShape{d[0], d[1], d[2], d[3], d[4]}, wish_of(wish));
    const int64_t all[7] = {int64_t(p.way), p.cluster, p.threads, p.runs_of_block, p.runs_on_chip,
                            p.splits, p.pairs_of_wave};
    std::memcpy(out, all, sizeof all);
    return 0;
  } catch (const std::exception& e) {
    std::strncpy(why, e.what(), 255);
    return 1;
  }
}
"""
SMALL, CLUSTER, SPLIT = 1, 2, 3
KB, MB = 1024, 1024 * 1024
HEADER, RESERVED = 4096, 1024
# multiprocessors, shared memory of a block and of a multiprocessor, level-2 cache, largest cluster:
# from NVIDIA's tuning guides of each architecture.
DEVICES = {
    "T4 (7.5)": (40, 64 * KB, 64 * KB, 4 * MB, 1),
    "A100 (8.0)": (108, 163 * KB, 164 * KB, 40 * MB, 1),
    "L40 (8.9)": (142, 99 * KB, 100 * KB, 96 * MB, 1),
    "H100 (9.0)": (132, 227 * KB, 228 * KB, 50 * MB, 16),
    "H100 that refuses 16": (114, 227 * KB, 228 * KB, 50 * MB, 8),
    "B200 (10.0)": (148, 227 * KB, 228 * KB, 126 * MB, 16),
    "RTX 5090 (12.0)": (170, 99 * KB, 100 * KB, 96 * MB, 8),
}
PAIRS = (1, 2, 7, 64, 130, 1024, 40_000)
CLASSES = (2, 3, 1000, 8191, 16_384, 65_537, 100_000, 500_001, 930_000, 1_000_000, 1_160_000,
           2_000_003, 40_000_000)  # fmt: skip


class Plan(NamedTuple):
    way: int
    cluster: int
    threads: int
    runs_of_block: int
    runs_on_chip: int
    splits: int
    pairs_of_wave: int


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("plan")
    (folder / "plan.cpp").write_text(SOURCE)
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", f"-I{ROOT / 'kernels'}"]
    library = str(folder / "plan.so")
    subprocess.run([*command, str(folder / "plan.cpp"), "-o", library], check=True)
    function = ctypes.CDLL(library).plan

    def ask(device: tuple, call: tuple, wish: str = "") -> Plan | str:
        numbers = (ctypes.c_int64 * 7)()
        why = ctypes.create_string_buffer(256)
        arguments = (ctypes.c_int64 * 5)(*device), (ctypes.c_int64 * 5)(*map(int, call))
        failed = function(*arguments, wish.encode(), numbers, why)
        return why.value.decode() if failed else Plan(*numbers)

    return ask


def every_call():
    return itertools.product(PAIRS, CLASSES, (2, 4, 8), (False, True), (False, True))


def runs_at_most(classes: int, element: int) -> int:
    """Runs of 16 bytes that a row can touch, by trying every alignment."""
    per = 16 // element
    return max((over + classes - 1) // per + 1 for over in range(per))


@pytest.mark.parametrize("name", DEVICES)
def test_every_plan_can_be_launched_and_covers_the_row(plan, name: str) -> None:
    device = DEVICES[name]
    _, block, processor, _, largest = device
    for call in every_call():
        pairs, classes, element, *_ = call
        found = plan(device, call)
        assert isinstance(found, Plan), found
        parts = found.splits if found.way == SPLIT else found.cluster
        assert found.runs_of_block * parts >= runs_at_most(classes, element)
        assert found.runs_of_block * (16 // element) < 2**31
        shared = HEADER + 32 * found.runs_on_chip
        assert shared <= block
        assert shared + RESERVED <= processor
        assert found.threads % 32 == 0
        assert found.threads <= (256 if element == 8 else 768)
        assert 1 <= found.pairs_of_wave <= max(1, pairs)
        assert found.pairs_of_wave * parts < 2**31
        if found.way != SPLIT:
            assert found.cluster <= largest
            assert found.cluster in (1, 2, 4, 8, 16)
            assert (found.way == SMALL) == (found.cluster == 1)
            assert found.runs_on_chip * 5 >= found.runs_of_block * 4
            # The threads of two blocks only where there is no room for a second one.
            if found.threads > 384:
                assert 2 * (HEADER + 32 * found.runs_of_block + RESERVED) > processor
            # Of each thread as many, and all of them or enough to fetch ahead.
            assert found.runs_on_chip % found.threads == 0
            if found.runs_on_chip < found.runs_of_block:
                assert found.runs_on_chip >= 4 * found.threads


@pytest.mark.parametrize("name", DEVICES)
def test_waves_stay_in_the_cache_and_reads_happen_once_where_they_can(plan, name: str) -> None:
    device = DEVICES[name]
    for call in every_call():
        pairs, classes, element, gradient, two_sweeps = call
        found = plan(device, call)
        again = gradient or two_sweeps
        if found.way == SPLIT and again and found.pairs_of_wave > 1:
            assert found.pairs_of_wave * 2 * classes * element <= device[3] * 2 / 5
        if found.way == SPLIT and not again:
            assert found.pairs_of_wave == pairs
        holds = device[4] * (min(device[2] - RESERVED, device[1]) - HEADER)
        if again and pairs >= device[0] and 2 * classes * element <= holds - 64 * device[4]:
            assert found.way != SPLIT, call


@pytest.mark.parametrize(
    ("pairs", "classes", "way", "cluster"),
    [
        (1024, 1000, SMALL, 1),
        (1024, 16_384, SMALL, 1),
        (1024, 100_000, CLUSTER, 4),
        (1024, 500_000, CLUSTER, 16),
        (1024, 1_000_000, CLUSTER, 16),  # 1/16 of each row is read again
        (1024, 2_000_000, SPLIT, 1),
        (64, 16_384, CLUSTER, 4),  # the pairs alone would leave half of the device idle
        (2, 1_000_000, SPLIT, 1),
    ],
)
def test_bfloat16_on_an_h100(plan, pairs: int, classes: int, way: int, cluster: int) -> None:
    found = plan(DEVICES["H100 (9.0)"], (pairs, classes, 2, True, False))
    assert (found.way, found.cluster) == (way, cluster)


@pytest.mark.parametrize("name", ["A100 (8.0)", "H100 (9.0)", "H100 that refuses 16"])
def test_threads_of_the_gpus_test_ask_for_different_shared_memory(plan, name: str) -> None:
    """Sizes of tests/gpu/test_loss_gpu.py: what needs no asking is never taken from anybody."""
    less, much = (
        HEADER + 32 * plan(DEVICES[name], (150, classes, 2, True, False)).runs_on_chip
        for classes in (12_000, 25_000)
    )
    assert 48 * KB < less < much


@pytest.mark.parametrize(("pairs", "classes", "element"), [(256, 2**21, 2), (256, 2**20, 4)])
def test_the_longest_rows_of_the_benchmark_go_in_waves(
    plan, pairs: int, classes: int, element: int
) -> None:
    """The last two sizes of its preset for an H100."""
    found = plan(DEVICES["H100 (9.0)"], (pairs, classes, element, True, False))
    assert found.way == SPLIT
    assert found.pairs_of_wave <= pairs // 8


def test_a_wish_is_served_or_refused(plan) -> None:
    h100, a100 = DEVICES["H100 (9.0)"], DEVICES["A100 (8.0)"]
    call = (64, 50_000, 2, True, False)
    assert plan(h100, call, "small").way == SMALL
    assert plan(h100, call, "cluster:2")[:2] == (CLUSTER, 2)
    assert plan(h100, call, "split").way == SPLIT
    assert "at most 1" in plan(a100, call, "cluster:2")
    assert "at most 8" in plan(DEVICES["H100 that refuses 16"], call, "cluster:16")
    assert "do not fit" in plan(h100, (64, 500_000, 2, True, False), "small")
    for unknown in ("fast", "cluster", "cluster:3", "cluster:32", "Small"):
        assert "must be small, split or cluster:2" in plan(h100, call, unknown)


@pytest.mark.parametrize(("size", "cluster"), [((37_000, 39_000), 2), ((70_000, 74_000), 1)])
def test_small_devices_of_the_emulation_read_some_runs_again(plan, size, cluster: int) -> None:
    """What `long_rows` of cuda_on_cpu/agreement.py is there for."""
    found = plan((2, *size, 65_536, cluster), (3, 5003, 8, True, False))
    assert (found.way != SPLIT, found.cluster) == (True, cluster)
    assert found.runs_on_chip < found.runs_of_block
