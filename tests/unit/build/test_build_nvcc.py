"""What setup.py asks of the nvcc that it finds, and of an older one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py without its call of `setup`."""
    module = ModuleType("setup_without_its_call")
    module.__file__ = str(ROOT / "setup.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("PAIRDISTILL_CUDA_ARCHS", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    exec((ROOT / "setup.py").read_text().split("\nsetup(")[0], vars(module))
    return module


def fake_nvcc(folder: Path, release: str, known: str = "75 80 90 90a") -> str:
    """An nvcc that tells its release and architectures as the real one does."""
    nvcc = folder / f"nvcc-{release}"
    archs = " ".join(f"compute_{arch}" for arch in known.split())
    nvcc.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --list-gpu-arch ]; then printf "%s\\n" {archs}; exit; fi\n'
        f'echo "nvcc: NVIDIA (R) Cuda compiler driver"\n'
        f'echo "Cuda compilation tools, release {release}, V{release}.99"\n'
        f'echo "Build cuda_{release}.r{release}/compiler.1_0"\n'
    )
    nvcc.chmod(0o755)
    return str(nvcc)


def test_an_older_nvcc_builds_for_what_it_knows(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build.cuda_archs(fake_nvcc(tmp_path, "13.0")) == ["75", "80", "90"]
    assert build.cuda_archs(fake_nvcc(tmp_path, "12.9", "70 80 90 90a")) == ["80", "90"]
    assert "CUDA 13.0 for sm_75, sm_80, sm_90" in build.description(fake_nvcc(tmp_path, "13.0"))
    monkeypatch.setenv("PAIRDISTILL_CUDA_ARCHS", "120")
    assert build.cuda_archs(fake_nvcc(tmp_path, "12.8")) == ["120"]


def test_an_nvcc_without_bfloat16_arithmetic_for_7_5_leaves_it_out(
    build: ModuleType, tmp_path: Path
) -> None:
    """cuda_bf16.h declares it from compute capability 8.0 on until CUDA 12.1, for all since."""
    assert build.cuda_archs(fake_nvcc(tmp_path, "12.1")) == ["80", "90"]
    assert build.cuda_archs(fake_nvcc(tmp_path, "12.2")) == ["75", "80", "90"]


def test_an_nvcc_without_clusters_is_named(build: ModuleType, tmp_path: Path) -> None:
    nvcc = fake_nvcc(tmp_path, "11.5", "75 80 86")
    with pytest.raises(SystemExit, match=rf"{nvcc} is of CUDA 11\.5, and 11\.8 .*CUDA_HOME"):
        build.cuda_archs(nvcc)


def test_nvcc_takes_the_compiler_that_cxx_names(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conda's has another name than g++, and there may be no g++."""
    nvcc = fake_nvcc(tmp_path, "13.0")
    kernels, _ = build.cuda_steps(nvcc)
    assert "-ccbin" not in kernels.command
    monkeypatch.setenv("CXX", "x86_64-conda-linux-gnu-c++")
    kernels, operators = build.cuda_steps(nvcc)
    assert kernels.command[:3] == [nvcc, "-ccbin", "x86_64-conda-linux-gnu-c++"]
    assert operators.command[0] == "x86_64-conda-linux-gnu-c++"
    linked: list[list[str]] = []
    monkeypatch.setattr(build, "OBJECTS", tmp_path)

    def run(command: list[str], **_: object) -> None:
        linked.append(command)
        Path(command[-1]).touch()

    monkeypatch.setattr(build.subprocess, "run", run)
    build.link([], nvcc)
    assert linked[0][:4] == [nvcc, "-ccbin", "x86_64-conda-linux-gnu-c++", "-shared"]
