"""What nvcc reported of the kernels when they were built: no register is spilled anywhere.

setup.py keeps the report beside the object file, so that nothing is compiled here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distill.losses import fused

OBJECTS = Path(__file__).parents[3] / "build" / "kernels"
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


def test_a_spill_is_seen() -> None:
    lines = (
        "ptxas info    : Compiling entry function '_Z7on_chipIfE' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z7on_chipIfE\n"
        "    {} bytes stack frame, {} bytes spill stores, {} bytes spill loads\n"
        "ptxas info    : Used 80 registers, used 1 barriers\n"
    )
    assert spilled(lines.format(0, 0, 0)) == []
    assert spilled(lines.format(16, 12, 8)) == ["sm_90 _Z7on_chipIfE"]
