"""The CUDA kernels themselves, run thread by thread on the CPU: for machines without a GPU.

`cuda_on_cpu/` gives g++ the little of CUDA's language that `kernels/pair_loss.cu` uses. What runs
is that file, its launches, splits, shuffles and barriers; what a GPU does differently (its exp,
its memory system) is for `tests/gpu`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from distill.losses import fused
fused.LIBRARY = Path(sys.argv[2])
import test_loss_edges as edges
import test_loss_native as native
from test_loss_native import TOLERANCE, PairLossSpec, check, make_case
for dtype in TOLERANCE:
    for similarity in native.SIMILARITIES:
        spec = PairLossSpec(similarity=similarity, label_smoothing=0.1)
        for B, C, scale in ((3, 37, 0.1), (1, 9001, 64.0), (2, 4097, 1.0)):
            check(make_case(B, C, scale, dtype=dtype, ignored=B > 1), dtype, 3.0, spec)
    # Both rows unaligned, in the same way and in different ways.
    case = make_case(2, 301, 2.0, dtype=dtype)
    expected = fused.row_terms(case.first.to(dtype), case.second.to(dtype), case.labels, 2.0, spec)
    for at in (302, 304):
        wide = torch.full((2, 700), torch.nan, dtype=dtype)
        first, second = wide[:, 1:302], wide[:, at + 1 : at + 302]
        first.copy_(case.first), second.copy_(case.second)
        ours = fused.row_terms(first, second, case.labels, 2.0, spec)
        for a, b in zip(ours, expected):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
for C in (2, 7, 8, 9, 8193):
    native.test_odd_sizes_and_labels_at_every_edge(C)
for spec in edges.SPECS:
    edges.test_ignored_pairs_touch_nothing_whatever_they_hold(spec)
edges.test_classes_excluded_on_both_sides(PairLossSpec(), torch.float32)
edges.test_nan_poisons_its_row_and_no_other(PairLossSpec(), float("nan"), 1500)
native.test_margin_targets_and_their_gradient(torch.float32)
print("agreed")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pair_loss.cu` compiled for the CPU."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler here")
    torch_folder = Path(torch.__file__).parent
    kernels = ROOT / "kernels"
    out = tmp_path_factory.mktemp("cuda_on_cpu") / "emulated.so"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-x", "c++"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DPAIR_LOSS_ISA=cuda"]
    flags += ['-DPAIR_LOSS_DEVICE_HEADER="device_on_cpu.h"', '-DPAIR_LOSS_BUILD="emulated"']
    folders = [f"-I{HERE / 'cuda_on_cpu'}", f"-I{kernels}", f"-isystem{torch_folder / 'include'}"]
    sources = [str(kernels / name) for name in ("pair_loss.cu", "pair_loss_schema.cpp")]
    libraries = ["-x", "none", f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    command = [compiler, *flags, *folders, *sources, *libraries, "-o", str(out)]
    subprocess.run(command, check=True)
    return out


def test_cuda_kernels_agree_with_the_reference(library: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(HERE), str(library)],
        env={**os.environ, "EMULATED_MULTIPROCESSORS": "2"},  # rows are split over blocks
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"
