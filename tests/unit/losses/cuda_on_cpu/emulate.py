"""Builds the CUDA sources for the CPU, and runs programs or tests on what came of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
SOURCES = ("pair_loss_launch.cu", "pair_loss_cuda.cpp", "pair_loss_schema.cpp")


def build(folder: Path) -> Path:
    """The library whose CPU operators are the CUDA kernels, emulated; skips without a compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler here")
    torch_folder = Path(torch.__file__).parent
    flags = ["-std=c++17", "-O1", "-fPIC", "-w", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    flags += ["-DPAIR_LOSS_ISA=cuda", '-DPAIR_LOSS_BUILD="emulated"']
    flags += ['-DPAIR_LOSS_TENSOR_HEADER="stream_on_cpu.h"']
    flags += [f"-I{HERE}", f"-I{ROOT / 'kernels'}", f"-isystem{torch_folder / 'include'}"]

    def compiled(source: str) -> str:
        target = str(folder / f"{source}.o")
        command = [compiler, *flags, "-x", "c++", "-c", str(ROOT / "kernels" / source)]
        subprocess.run([*command, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, SOURCES))
    library = folder / "emulated.so"
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    subprocess.run([compiler, "-shared", *objects, *libraries, "-o", str(library)], check=True)
    return library


def run(library: Path, program: str, *arguments: str, **environment: str):
    """``program`` in a process of its own, where the native loss is the emulated one."""
    start = (
        "import sys; from pathlib import Path; from distill.losses import fused;"
        "fused.LIBRARY = Path(sys.argv[1]); sys.path[:0] = sys.argv[2:4]; del sys.argv[1:4];"
    )
    command = [sys.executable, "-c", start + program, str(library), str(HERE), str(HERE.parent)]
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
