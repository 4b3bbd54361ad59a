"""What nvcc reported of the kernels when they were built: no register is spilled anywhere.

setup.py keeps the report beside the object file, so that no kernel is compiled here. And the
operators compile without what only newer headers of torch have.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from distill.losses import fused

ROOT = Path(__file__).parents[3]
OBJECTS = ROOT / "build" / "kernels"
KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '(?P<arch>sm_\d+\w*)'"
    r".*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)
KERNELS = ("on_chip", "reduce_parts", "mmd_parts", "gradient_parts")  # one for each of four types
OTHERS = ("fold_rows", "finish_rows", "mmd_rows", "invert_weights", "add_total")  # of two types


def spilled(report: str) -> list[str]:
    """Kernels that keep registers in memory."""
    kernels = KERNEL.finditer(report)
    return [f"{k['arch']} {k['name']}" for k in kernels if int(k["stores"]) + int(k["loads"])]


@pytest.fixture(scope="module")
def report() -> str:
    if "cuda" not in fused.native_devices():
        pytest.skip("the extension was built without CUDA")
    objects = list(OBJECTS.glob("pair_loss_launch-cuda-????????????????.o"))
    assert objects, f"a CUDA build, and no object of the kernels under {OBJECTS}"
    newest = max(objects, key=lambda path: path.stat().st_mtime)
    return newest.with_suffix(".txt").read_text()


def test_no_kernel_spills_on_any_architecture(report: str) -> None:
    assert spilled(report) == []


def test_every_kernel_was_compiled_for_every_architecture(report: str) -> None:
    kernels = [(k["arch"], k["name"]) for k in KERNEL.finditer(report)]
    assert len(kernels) == report.count("Compiling entry function")
    archs = set(re.findall(r"sm_\d+\w*", fused.build_info()[1]))
    assert {arch for arch, _ in kernels} == archs
    for arch in archs:
        names = [name for a, name in kernels if a == arch]
        for kernel, types in [*((k, 4) for k in KERNELS), *((k, 2) for k in OTHERS)]:
            found = [n for n in names if f"{len(kernel)}{kernel}I" in n]
            assert len(found) == types, (arch, kernel)


@pytest.mark.parametrize("source", ["pair_loss.cpp", "pair_loss_stream.cpp", "pair_loss_cuda.cpp"])
def test_operators_compile_against_the_oldest_torch(source: str, tmp_path: Path) -> None:
    """torch 2.11 has the stable ABI without the macro for its error codes (it was renamed)."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler here")
    headers = ("accelerator", "library", "ops", "tensor")
    included = [f"#include <torch/csrc/stable/{name}.h>" for name in headers]
    later = ["#undef STABLE_TORCH_ERROR_CODE_CHECK", f'#include "{source}"']
    (tmp_path / "old.cpp").write_text("\n".join([*included, *later]) + "\n")
    flags = ["-std=c++17", "-fsyntax-only", "-w", "-DUSE_CUDA", "-DPAIR_LOSS_ISA=generic"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", f"-I{ROOT / 'kernels'}"]
    flags += [f"-isystem{Path(torch.__file__).parent / 'include'}", str(tmp_path / "old.cpp")]
    done = subprocess.run([compiler, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_spill_is_seen() -> None:
    lines = (
        "ptxas info    : Compiling entry function '_Z7on_chipIfE' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z7on_chipIfE\n"
        "    {} bytes stack frame, {} bytes spill stores, {} bytes spill loads\n"
        "ptxas info    : Used 80 registers, used 1 barriers\n"
    )
    assert spilled(lines.format(0, 0, 0)) == []
    assert spilled(lines.format(16, 12, 8)) == ["sm_90 _Z7on_chipIfE"]
