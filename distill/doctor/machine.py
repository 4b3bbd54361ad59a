"""What works on this machine: each part tried by using it, with the fix for what does not.

A check returns a `Check` and never raises. Libraries with native parts are tried in a process of
their own, so that one that crashes is a failed row, not the end of the examination.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from distill import detector_package, gpus
from distill.extras import how_to_install
from distill.processes.cores import usable_cores

PROBE_TIMEOUT_SECONDS = 120
PROBES_AT_ONCE = 2
MIN_TORCH = (2, 11)
MIN_DISK_GB = 2.0
MIN_MEMORY_GB = 2.0
MIN_SHARED_MB = 64.0
GB = 1e9
SLOW_ON_GPU = 3
"""Exit status of `distill.doctor.loss` where it is right, and not built for a GPU that is here."""
SET_UP = "run `make setup` in the repository"


@dataclass(frozen=True)
class Check:
    """One row of the examination.

    Attributes:
        name: what was examined.
        ok: whether it works.
        found: what was found, one line.
        fix: what to do where it does not work; empty where it does.
        needed: whether pairdistill cannot work without it.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True


def run_checks() -> Iterator[Check]:
    """The rows in the order of `CHECKS`; most of the time goes into starting other processes."""
    with ThreadPoolExecutor(max_workers=PROBES_AT_ONCE) as pool:
        yield from pool.map(lambda check: check(), CHECKS)


def all_needed_work(checks: list[Check]) -> bool:
    """Whether everything that pairdistill cannot do without works."""
    return all(check.ok for check in checks if check.needed)


def check_python() -> Check:
    """Python's version, 3.11 to 3.14."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 11) <= sys.version_info[:2] <= (3, 14)
    return _check("Python", ok, f"{version} at {sys.executable}", f"use 3.11 to 3.14: {SET_UP}")


def check_torch() -> Check:
    """Torch's version, and the devices it sees."""
    seen = probe(
        "import torch; c = torch.cuda; n = c.device_count() if c.is_available() else 0; "
        "print(torch.__version__, f'built for CUDA {torch.version.cuda},' if torch.version.cuda "
        "else 'built for CPU,', f'{n} x {c.get_device_name(0)}' if n else 'no CUDA device')"
    )
    if seen.returncode:
        return _check("torch", False, last_line(seen.stderr), SET_UP)
    found = last_line(seen.stdout)  # before it stands what others say as they are imported
    version = tuple(int(part) for part in found.split(".")[:2])
    fix = f"torch 2.{MIN_TORCH[1]} or newer is needed: {SET_UP}"
    return _check("torch", version >= MIN_TORCH, found, fix)


def check_gpus() -> Check:
    """Whether torch sees a GPU where there is one; torch is asked only where there is."""
    if not (here := gpus.here()):
        return _check("GPUs", True, "no NVIDIA driver here")
    if gpus.withheld():
        return _check("GPUs", True, f"{here}, and no GPU is given to this process")
    seen = probe("from distill.ranks import idle_gpus; print(idle_gpus())")
    if seen.returncode:
        return _check("GPUs", False, last_line(seen.stderr), SET_UP, needed=False)
    idle = seen.stdout.strip()
    found = last_line(idle) if idle else f"{here}, and torch can use it"
    return _check("GPUs", not idle, found, gpus.REMEDY, needed=False)


def check_native_loss() -> Check:
    """Whether the native pair loss is built, and right on each device it was built for."""
    seen = run([sys.executable, "-m", "distill.doctor.loss"])
    found = last_line(seen.stderr or seen.stdout if seen.returncode else seen.stdout)
    if seen.returncode == SLOW_ON_GPU:
        return _check("native loss", False, found, gpus.BUILD_LOSS, needed=False)
    fix = f"{SET_UP}; for a GPU with nvcc on the PATH, or PAIRDISTILL_CUDA=0 for the CPU alone"
    return _check("native loss", seen.returncode == 0, found, fix)


def check_cuda() -> Check:
    """The CUDA compiler, which `make setup` builds the loss for GPUs with."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        fix = "only for GPUs: install the CUDA toolkit that torch was built for, then make setup"
        return _check("CUDA compiler", False, "no nvcc on PATH", fix, needed=False)
    answer = run([nvcc, "--version"])
    found = f"{nvcc}: {last_line(answer.stderr if answer.returncode else answer.stdout)}"
    fix = "only for GPUs: install the CUDA toolkit anew, or put one that works first on the PATH"
    return _check("CUDA compiler", answer.returncode == 0, found, fix, needed=False)


def check_deepspeed() -> Check:
    """Whether DeepSpeed can be imported."""
    seen = probe("import deepspeed; print(deepspeed.__version__)", DS_ACCELERATOR="cpu")
    return _import_check("DeepSpeed", seen, SET_UP)


def check_ffcv() -> Check:
    """Whether FFCV and the libraries it is linked to load."""
    seen = probe(
        "import ffcv; from importlib.metadata import version; "
        "maps = open('/proc/self/maps').read().split(); "
        "print(version('ffcv'), *sorted({m for m in maps if 'turbojpeg' in m}))"
    )
    fix = f"its libraries may have changed since it was built: rm -r .venv, then {SET_UP}"
    return _import_check("FFCV", seen, fix)


def check_detector() -> Check:
    """Whether the face detector loads and runs; needed on the processors it is made for."""
    if detector_package.folder() is None:
        found, fix = f"{detector_package.PACKAGE} is not installed", detector_package.advice()
        return _check("face detector", False, found, fix, needed=detector_package.is_needed())
    seen = probe(
        "import numpy as np; from distill.data.detector import FaceDetector; "
        "faces = FaceDetector().detect(np.zeros((160, 160, 3), np.uint8)); "
        "print('loads and runs' if faces == [] else f'sees {len(faces)} faces in a black picture')"
    )
    return _import_check("face detector", seen, SET_UP)


def check_ranks() -> Check:
    """Whether two processes of this machine can form a process group."""
    seen = run([sys.executable, "-m", "distill.doctor.ring"])
    found = "2 processes met and added up" if seen.returncode == 0 else last_line(seen.stderr)
    fix = "allow connections on 127.0.0.1; if set, unset GLOO_SOCKET_IFNAME and http_proxy"
    return _check("several ranks", seen.returncode == 0, found, fix)


def check_cores() -> Check:
    """Cores that this process may use, and those of the machine."""
    usable, cores = usable_cores(), os.cpu_count()
    note = "" if usable == cores else " (limited by affinity or by the scheduler)"
    return _check("cores", True, f"{usable} of {cores} usable{note}")


def check_memory() -> Check:
    """Memory that is free now."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB free"
    fix = f"training even the demo wants {MIN_MEMORY_GB:.0f} GB: end other programs"
    return _check("memory", memory.available >= MIN_MEMORY_GB * GB, found, fix, needed=False)


def check_disk() -> Check:
    """Free space where runs are written by default, the working directory."""
    free = shutil.disk_usage(Path.cwd()).free
    fix = f"free some space ({MIN_DISK_GB:.0f} GB for the demo), or work in another folder"
    return _check("disk", free >= MIN_DISK_GB * GB, f"{free / GB:.1f} GB free here", fix)


def check_shared_memory() -> Check:
    """Shared memory, through which loaders' processes hand over images."""
    folder = Path("/dev/shm")  # noqa: S108
    size = shutil.disk_usage(folder).total if folder.is_dir() else 0
    fix = "in a container: start it with --shm-size=1g"
    found = f"{size / GB:.2f} GB at {folder}"
    return _check("shared memory", size >= MIN_SHARED_MB * 1e6, found, fix, needed=False)


def check_temporary() -> Check:
    """Whether temporary files can be written."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        fix = "set TMPDIR to a folder that you can write to"
        return _check("temporary files", False, str(error), fix)
    return _check("temporary files", True, f"can be written below {tempfile.gettempdir()}")


def check_tensorboard() -> Check:
    """TensorBoard, for the curves of a run."""
    return _installed("tensorboard", "tensorboard", SET_UP)


def check_demo_faces() -> Check:
    """The ten generated people of the demo."""
    return _installed("demo faces", "openpeople", how_to_install("demo"), needed=False)


def check_timm() -> Check:
    """The library of backbones `timm:NAME`."""
    return _installed("timm backbones", "timm", how_to_install("timm"), needed=False)


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python,
    check_torch,
    check_gpus,
    check_native_loss,
    check_cuda,
    check_deepspeed,
    check_ffcv,
    check_detector,
    check_ranks,
    check_cores,
    check_memory,
    check_disk,
    check_shared_memory,
    check_temporary,
    check_tensorboard,
    check_demo_faces,
    check_timm,
)


def probe(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new Python with ``environment`` added to ours."""
    return run([sys.executable, "-c", code], environment)


def run(
    argv: list[str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end, or for `PROBE_TIMEOUT_SECONDS`; what it wrote, as text.

    A program that cannot be started is one that failed and said why.
    """
    env = {**os.environ, **(environment or {})}
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=env,
            timeout=PROBE_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"no answer within {PROBE_TIMEOUT_SECONDS} seconds"
        return subprocess.CompletedProcess(argv, 1, stdout="", stderr=message)
    except OSError as error:
        return subprocess.CompletedProcess(argv, 1, stdout="", stderr=str(error))


def last_line(text: str) -> str:
    """The last line of ``text`` that is not empty; it holds the error of a stack trace."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def _check(name: str, ok: bool, found: str, fix: str = "", *, needed: bool = True) -> Check:
    return Check(name, ok, found, "" if ok else fix, needed)


def _import_check(name: str, seen: subprocess.CompletedProcess[str], fix: str) -> Check:
    if seen.returncode < 0:
        return _check(name, False, f"crashed with signal {-seen.returncode}", fix)
    found = last_line(seen.stderr if seen.returncode else seen.stdout)
    return _check(name, seen.returncode == 0, found, fix)


def _installed(name: str, package: str, fix: str, *, needed: bool = True) -> Check:
    """Whether ``package`` is installed; found by its metadata, without importing it."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return _check(name, False, f"{package} is not installed", fix, needed=needed)
    return _check(name, True, f"{package} {version}", needed=needed)
