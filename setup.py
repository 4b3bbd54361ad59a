"""Builds `distill/_kernels.so`: the native pair loss, for CPU and, where nvcc is, for CUDA.

The library holds no Python code; it registers `torch.ops.pairdistill.*` when it is loaded, through
torch's stable ABI, so that one build serves every Python and torch 2.11 and later. A GPU is never
needed to build it: clusters build on login nodes.

Environment:
    PAIRDISTILL_CUDA        1: CUDA must be built; 0: it must not; unset: built where nvcc is.
    PAIRDISTILL_CUDA_ARCHS  e.g. "80;90"; default those of 75;80;86;89;90;100;120 that nvcc
                            knows, and PTX of the last for newer.
    CUDA_HOME, CXX          where nvcc is, and which C++ compiler is used, by nvcc too.

A compiler that fails fails the build. Objects are kept under build/kernels and used again while
their sources, headers, flags and compiler stay the same. Beside nvcc's object lies what it reports
of each kernel (registers, spills): `pair_loss_launch-cuda-*.txt`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "kernels"
OBJECTS = ROOT / "build" / "kernels"
OLDEST_TORCH = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # the ABI of torch 2.11
CUDA_ARCHS = "75;80;86;89;90;100;120"
OLDEST_NVCC = (11, 8)  # the first with clusters
NVCC_WITH_BFLOAT16_FOR_75 = (12, 2)  # before, its arithmetic is there from 8.0 on
X86_FLAGS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
        "-mprefer-vector-width=512",
    ],
}


@dataclass(frozen=True)
class Step:
    """One compiler call: `command` and `-o object`."""

    source: Path
    variant: str
    command: list[str]

    @property
    def object(self) -> Path:
        """Where the result goes; its name changes with everything it depends on."""
        digest = hashlib.sha256(shlex.join(self.command).encode())
        digest.update(compiler_version(self.command[0]).encode())
        for file in sorted([self.source, *SOURCES.glob("*.h"), *SOURCES.glob("*.cuh")]):
            digest.update(file.read_bytes())
        return OBJECTS / f"{self.source.stem}-{self.variant}-{digest.hexdigest()[:16]}.o"


def cxx() -> list[str]:
    """The C++ compiler, with the options that come with its name."""
    return shlex.split(os.environ.get("CXX", "g++"))


@functools.cache
def answer(*command: str) -> str:
    """What a compiler says to a question; it is asked once."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compiler_version(*compiler: str) -> str:
    """First and last line of `compiler --version`."""
    lines = answer(*compiler, "--version").split("\n")
    return " ".join(line for line in (lines[0], lines[-2]) if line)


def torch_folder() -> Path:
    """Where torch is installed; it is not imported, which would take seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: torch is not installed here; install torch>=2.11 first")
    return Path(spec.submodule_search_locations[0])


def nvcc() -> str | None:
    """The CUDA compiler to use, or None for a CPU build."""
    wanted = os.environ.get("PAIRDISTILL_CUDA", "")
    if wanted == "0":
        return None
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if found is None and wanted == "1":
        raise SystemExit("error: PAIRDISTILL_CUDA=1, but there is no nvcc; set CUDA_HOME")
    return found


def cuda_release(cuda: str) -> tuple[int, int]:
    """Release of an nvcc, e.g. (13, 0)."""
    found = re.search(r"release (\d+)\.(\d+)", answer(cuda, "--version"))
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if release < OLDEST_NVCC:
        wanted = ".".join(map(str, OLDEST_NVCC))
        raise SystemExit(
            f"error: {cuda} is of CUDA {'.'.join(map(str, release))}, and {wanted} is the oldest "
            "that will do; set CUDA_HOME to a newer one, or PAIRDISTILL_CUDA=0 for none"
        )
    return release


@functools.cache
def cuda_archs(cuda: str) -> list[str]:
    """Compute capabilities to compile for, e.g. ["75", "90"]: as asked, or what this nvcc knows."""
    release = cuda_release(cuda)
    asked = os.environ.get("PAIRDISTILL_CUDA_ARCHS")
    if asked:
        return asked.replace(",", ";").split(";")
    known = answer(cuda, "--list-gpu-arch").split()
    archs = [a for a in CUDA_ARCHS.split(";") if f"compute_{a}" in known]
    if release < NVCC_WITH_BFLOAT16_FOR_75:
        archs = [a for a in archs if a != "75"]
    if not archs:
        raise SystemExit(f"error: {cuda} knows none of {CUDA_ARCHS}; set PAIRDISTILL_CUDA_ARCHS")
    return archs


def description(cuda: str | None) -> str:
    """How this build was made, one line; shown by `pairdistill doctor`."""
    parts = [
        compiler_version(*cxx()).split(" Copyright")[0],
        f"torch {importlib.metadata.version('torch')}",
    ]
    if cuda:
        release = ".".join(map(str, cuda_release(cuda)))
        parts.append(f"CUDA {release} for sm_{', sm_'.join(cuda_archs(cuda))} and PTX")
    return "built with " + ", ".join(parts)


def cpu_steps(cuda: str | None) -> list[Step]:
    """The operators, and the vector loops once for each instruction set."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    common = [*cxx(), "-std=c++17", "-fPIC", "-Wall"]
    common += ["-Wno-attributes", *(["-DPAIR_LOSS_X86"] if x86 else [])]
    operators = [*common, "-O2", "-fopenmp-simd", f"-isystem{torch_folder() / 'include'}"]
    operators.append(OLDEST_TORCH)
    described = [*operators, f'-DPAIR_LOSS_BUILD="{description(cuda)}"']
    steps = [
        Step(SOURCES / "pair_loss_schema.cpp", "schema", described),
        Step(SOURCES / "pair_loss.cpp", "cpu", operators),
        Step(SOURCES / "pair_loss_stream.cpp", "cpu", operators),
    ]
    # Without errno and traps a loop may be turned into vectors; the arithmetic stays IEEE.
    loops = [*common, "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
    for name, flags in X86_FLAGS.items() if x86 else [("generic", [])]:
        command = [*loops, *flags, f"-DPAIR_LOSS_ISA={name}"]
        steps.append(Step(SOURCES / "pair_loss_cpu.cpp", name, command))
    return steps


def with_host_compiler(cuda: str) -> list[str]:
    """nvcc, told to use the C++ compiler that CXX names; without CXX it looks for g++ itself."""
    words = shlex.split(os.environ.get("CXX", ""))
    return [cuda, "-ccbin", words[0]] if len(words) == 1 else [cuda]


def cuda_steps(cuda: str) -> list[Step]:
    """The kernels, for every architecture in one call, and the operators that launch them."""
    archs = cuda_archs(cuda)
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
    targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    common = ["-std=c++17", "-DPAIR_LOSS_ISA=cuda"]
    kernels = [*with_host_compiler(cuda), *common, "-O3", "--threads", "2"]
    kernels += ["-Xcompiler", "-fPIC,-Wno-attributes"]
    kernels += [*targets, "-Xptxas", "-v"]
    operators = [*cxx(), *common, "-O2", "-fPIC", "-Wall"]
    operators += ["-Wno-attributes", "-Wno-unknown-pragmas", "-DUSE_CUDA", OLDEST_TORCH]
    operators += [f"-isystem{torch_folder() / 'include'}"]
    return [
        Step(SOURCES / "pair_loss_launch.cu", "cuda", kernels),
        Step(SOURCES / "pair_loss_cuda.cpp", "cuda", operators),
    ]


def compile_step(step: Step) -> Path:
    """Compile unless the result is already there; written under another name first."""
    target = step.object
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}.o")
        command = [*step.command, "-c", str(step.source), "-o", str(partial)]
        print(shlex.join(command), flush=True)
        if step.source.suffix == ".cu":
            run_with_report(command, target.with_suffix(".txt"))
        else:
            subprocess.run(command, check=True, cwd=ROOT)
        partial.replace(target)
    return target


def run_with_report(command: list[str], report: Path) -> None:
    """Run nvcc and keep what it says; shown where it fails."""
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    report.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}error: nvcc failed")


def link(objects: list[Path], cuda: str | None) -> Path:
    """One shared library of all objects; nvcc adds its runtime, statically."""
    digest = hashlib.sha256("".join(o.name for o in objects).encode()).hexdigest()[:16]
    target = OBJECTS / f"_kernels-{digest}.so"
    if not target.exists():
        libraries = [f"-L{torch_folder() / 'lib'}", "-ltorch_cpu", "-lc10"]
        linker = with_host_compiler(cuda) if cuda else cxx()
        partial = target.with_suffix(f".{os.getpid()}.so")
        command = [*linker, "-shared", *map(str, objects), *libraries, "-o", str(partial)]
        print(shlex.join(command), flush=True)
        subprocess.run(command, check=True, cwd=ROOT)
        partial.replace(target)
    return target


class BuildKernels(build_ext):
    """Compiles `kernels/` in place of setuptools' own idea of an extension."""

    def get_ext_filename(self, fullname: str) -> str:
        """No Python version in the name: any Python loads it."""
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        """Compile what changed, link, and put the library where setuptools wants it."""
        OBJECTS.mkdir(parents=True, exist_ok=True)
        cuda = nvcc()
        steps = [*(cuda_steps(cuda) if cuda else []), *cpu_steps(cuda)]
        with ThreadPoolExecutor(max_workers=max(1, len(os.sched_getaffinity(0)))) as pool:
            objects = list(pool.map(compile_step, steps))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new file, not new content: a running process keeps the library it has mapped.
        partial = target.with_suffix(f".{os.getpid()}.so")
        shutil.copy2(link(objects, cuda), partial)
        partial.replace(target)


setup(
    ext_modules=[Extension("distill._kernels", sources=[])],
    cmdclass={"build_ext": BuildKernels},
)
