"""Builds the CUDA sources for the CPU, and starts programs or tests on what came of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from forks import Forks

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
SOURCES = ("pair_loss_launch.cu", "pair_loss_cuda.cpp", "pair_loss_schema.cpp")


def build(folder: Path) -> Path:
    """The library whose CPU operators are the CUDA kernels, emulated; skips without a compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler here")
    torch_folder = Path(torch.__file__).parent
    flags = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-w"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000"]
    flags += ["-DPAIR_LOSS_ISA=cuda", '-DPAIR_LOSS_BUILD="emulated"']
    flags += ['-DPAIR_LOSS_TENSOR_HEADER="stream_on_cpu.h"']
    flags += [f"-I{HERE}", f"-I{ROOT / 'kernels'}", f"-isystem{torch_folder / 'include'}"]

    def compiled(source: str) -> str:
        target = str(folder / f"{source}.o")
        level = "-O1" if source.endswith(".cu") else "-O0"  # the rest runs once a call
        command = [compiler, level, *flags, "-x", "c++", "-c", str(ROOT / "kernels" / source)]
        subprocess.run([*command, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, SOURCES))
    library = folder / "emulated.so"
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    subprocess.run([compiler, "-shared", *objects, *libraries, "-o", str(library)], check=True)
    return library


def forks(library: Path) -> Forks:
    """Starts programs and tests where the native loss is the emulated one, loaded already."""
    imports = (
        "import sys; from pathlib import Path; from distill.losses import PairLossSpec, fused;"
        "fused.LIBRARY = Path(sys.argv[1]); import pytest, torch, agreement;"
        "fused.native_devices();"
        "assert agreement.OPS.build_description() == 'emulated'"
    )
    return Forks(imports, str(library), folders=[HERE, HERE.parent])
