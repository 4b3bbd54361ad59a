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
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import needs_native

HERE = Path(__file__).parent / "fake_cuda"
ROOT = Path(__file__).parents[3]
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


def called(accelerator: Path, name: str) -> subprocess.CompletedProcess[str]:
    # The accelerator comes before torch, which asks once what there is.
    start = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); import calls; calls.make(sys.argv[2])"
    command = [sys.executable, "-c", start, str(accelerator), name]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    "name", ["whole_scores", "chunks", "chunks_in_plain_torch", "shares_of_the_classes"]
)
def test_everything_is_on_the_device_and_nothing_waits(accelerator: Path, name: str) -> None:
    done = called(accelerator, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "called"


def test_what_waits_is_seen(accelerator: Path) -> None:
    done = called(accelerator, "waits")
    assert "_local_scalar_dense" in done.stderr
    done = called(accelerator, "indexes_on_the_host")
    assert "a tensor (2,) of the host" in done.stderr
