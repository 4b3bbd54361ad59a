"""The losses of CUDA tensors where there is no GPU: the device, type and shape of every tensor.

`fake_cuda/` gives a CPU build of torch an accelerator whose tensors have no memory (torch's own
fake tensors). So every operator is called as on a GPU, the branches for CUDA among them; what
would mix devices, or make the host wait, is an error. What is computed is for tests/gpu.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from forks import Forks
from loss_cases import needs_native

HERE = Path(__file__).parent / "fake_cuda"
GPU_TESTS = Path(__file__).parents[2] / "gpu"
pytestmark = [
    needs_native,
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.version.cuda is not None, reason="this torch has a CUDA of its own: see tests/gpu"
    ),
]


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler here")
    library = tmp_path_factory.mktemp("fake_cuda") / "accelerator.so"
    torch_folder = Path(torch.__file__).parent
    command = [compiler, "-std=c++20", "-O0", "-fPIC", "-shared", str(HERE / "accelerator.cpp")]
    command += [f"-isystem{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}"]
    command += [f"-Wl,-rpath,{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10", "-o", str(library)]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="module")
def programs(accelerator: Path) -> Iterator[Forks]:
    # The accelerator comes before torch, which asks once what there is.
    imports = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); import calls"
    started = Forks(imports, str(accelerator), folders=[HERE, GPU_TESTS])
    yield started
    started.end()


def called(programs: Forks, name: str) -> subprocess.CompletedProcess[str]:
    return programs.run("import calls, sys; calls.make(sys.argv[1])", name)


@pytest.mark.parametrize(
    "name",
    [
        *("whole_scores", "chunks", "chunks_in_plain_torch", "shares_of_the_classes"),
        "calls_timed_in_place",
    ],
)
def test_everything_is_on_the_device_and_nothing_waits(programs: Forks, name: str) -> None:
    done = called(programs, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "called"


def test_a_wrong_label_meets_a_device_that_knows_every_kernel(programs: Forks) -> None:
    done = programs.run("import calls; calls.labels_out_of_range()")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "called"


def test_what_waits_is_seen(programs: Forks) -> None:
    done = called(programs, "waits")
    assert "_local_scalar_dense" in done.stderr
    done = called(programs, "indexes_on_the_host")
    assert "a tensor (2,) of the host" in done.stderr
