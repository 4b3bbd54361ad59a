"""The CUDA kernels themselves, run thread by thread on the CPU: for machines without a GPU.

`cuda_on_cpu/` gives g++ the little of CUDA's language and of its calls that `kernels/` use. What
runs is those files and their launches: blocks, clusters, shared memory, shuffles and barriers, and
what has to be asked for before a launch. What a GPU does differently (its exp, its memory system)
is for `tests/gpu`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "cuda_on_cpu"))
import emulate
from forks import Forks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """What is run has the emulated library loaded, and nothing heavy left to import."""
    started = emulate.forks(emulate.build(tmp_path_factory.mktemp("cuda_on_cpu")))
    yield started
    started.end()


def assert_agreed(done) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


@pytest.mark.parametrize("way", ["small", "cluster:2", "cluster:4", "split"])
def test_every_way_agrees_with_the_reference(programs: Forks, way: str) -> None:
    assert_agreed(programs.run("import agreement; agreement.run_all()", PAIRDISTILL_CUDA_PATH=way))


# Multiprocessors, shared memory of a block, of a multiprocessor, cache, largest cluster.
@pytest.mark.parametrize(
    "device",
    [
        "2,37000,39000,65536,2",
        "2,70000,74000,65536,1",
        "2,102400,103424,65536,1",
        "2,10000,36864,65536,2",
    ],
)
def test_rows_that_do_not_fit(programs: Forks, device: str) -> None:
    """On devices so small that the rule reads rows again, by clusters or in waves."""
    assert_agreed(programs.run("import agreement; agreement.long_rows()", EMULATED_DEVICE=device))


def test_streams_of_chunks(programs: Forks) -> None:
    assert_agreed(programs.run("import agreement; agreement.streams_of_chunks()"))


@pytest.mark.parametrize("module", ["test_loss_stream.py", "test_loss_edges.py"])
def test_what_holds_on_the_cpu_holds_for_the_kernels(programs: Forks, module: str) -> None:
    """The CPU's own tests. Only bits that depend on alignment are no promise of the GPU's."""
    others = "not strided_and_unaligned and not any_cut"
    program = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    flags = ["-q", "-x", "-p", "no:cacheprovider", "-k", others]
    done = programs.run(program, *flags, str(Path(__file__).with_name(module)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize(("way", "label"), [("small", -2), ("split", 37)])
def test_a_label_out_of_range_stops_the_device(programs: Forks, way: str, label: int) -> None:
    program = (
        "import sys, torch; from distill.losses import PairLossSpec, fused;"
        "z = torch.zeros(2, 37); y = torch.tensor([3, int(sys.argv[1])]);"
        "torch.ops.pairdistill.pair_loss(z, z, y, *fused.choices(PairLossSpec(), 2.0))"
    )
    done = programs.run(program, str(label), PAIRDISTILL_CUDA_PATH=way)
    assert done.returncode < 0
    assert "a label is out of range" in done.stderr


ONE_CALL = (
    "import agreement, torch;"
    "case = agreement.make_case(2, 9000, 2.0);"
    "agreement.check(case, torch.float32, 2.0, agreement.SPEC); print('agreed')"
)


@pytest.mark.parametrize("way", ["small", "cluster:16"])
def test_much_shared_memory_and_large_clusters_are_asked_for(programs: Forks, way: str) -> None:
    """The emulated device refuses what was not asked for, as a real one does."""
    device = "132,232448,233472,52428800,16"
    done = programs.run(ONE_CALL, EMULATED_DEVICE=device, PAIRDISTILL_CUDA_PATH=way)
    assert_agreed(done)


@pytest.mark.parametrize(
    ("status", "fix"), [(35, "an older nvcc"), (209, "PAIRDISTILL_CUDA_ARCHS")]
)
def test_a_build_that_does_not_fit_the_machine_says_what_to_do(
    programs: Forks, status: int, fix: str
) -> None:
    """cudaErrorInsufficientDriver and cudaErrorNoKernelImageForDevice."""
    done = programs.run(ONE_CALL, EMULATED_STATUS=str(status))
    assert done.returncode == 1
    assert fix in done.stderr


def test_a_wish_that_cannot_be_served_is_an_error(programs: Forks) -> None:
    program = (
        "import sys, torch; from distill.losses import PairLossSpec, fused;"
        "z = torch.zeros(2, 37); y = torch.zeros(2, dtype=torch.int64);"
        "torch.ops.pairdistill.pair_loss(z, z, y, *fused.choices(PairLossSpec(), 2.0))"
    )
    done = programs.run(program, PAIRDISTILL_CUDA_PATH="cluster:16")
    assert done.returncode == 1
    assert "at most 4" in done.stderr
