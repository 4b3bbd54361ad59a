"""What the set-up needs of the system: a compiler, headers, and the two libraries FFCV links to.

Each need is probed by doing what the build will do (compile, link, import), not by asking a package
manager, so that conda, Debian and hand-built libraries all count. Missing needs are installed by
apt-get where we are root on a Debian or Ubuntu; elsewhere one message lists the exact lines.
Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opencv_shim import build_environment
from steps import SetupError, Steps

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
APT_GET = ("apt-get", "-o", "DPkg::Lock::Timeout=120")  # another apt may be at work
CONDA_LINE = "conda install -y -c conda-forge compilers make pkg-config opencv libjpeg-turbo"


@dataclass(frozen=True)
class Need:
    """One thing the build needs.

    Attributes:
        name: what it is, for people.
        apt: Debian's names of the package, alternatives in the order of trial (Ubuntu's differ).
        found: whether it is there, found out by use.
    """

    name: str
    apt: tuple[str, ...]
    found: Callable[[], bool]


def compiles(source: str, *flags: str) -> bool:
    """Whether ``source`` (C++) compiles and links with ``flags``, as it would in the build."""
    environment = build_environment()
    compiler = environment.get("CXX", "g++")
    if shutil.which(compiler.split()[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "probe.cpp")
        file.write_text(source)
        argv = [*compiler.split(), str(file), "-o", str(Path(folder, "probe")), *flags]
        return (
            subprocess.run(argv, capture_output=True, env=environment, check=False).returncode == 0
        )


def pkg_config(package: str) -> list[str]:
    """Compiler and linker flags of ``package``; empty where it or pkg-config is missing."""
    environment = build_environment()
    if shutil.which("pkg-config", path=environment["PATH"]) is None:
        return []
    argv = ["pkg-config", "--cflags", "--libs", package]
    answer = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []


def has_opencv() -> bool:
    """Whether FFCV's `cv::resize` compiles and links."""
    source = (
        "#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n"
        "int main() { cv::Mat a(2, 2, CV_8UC3), b; cv::resize(a, b, cv::Size(4, 4)); }\n"
    )
    flags = pkg_config("opencv4")
    return bool(flags) and compiles(source, *flags)


def has_turbojpeg() -> bool:
    """Whether libjpeg-turbo's own interface compiles and links."""
    source = "#include <turbojpeg.h>\nint main() { return tjInitDecompress() == 0; }\n"
    flags = pkg_config("libturbojpeg")
    return bool(flags) and compiles(source, *flags)


def has_python_headers() -> bool:
    """Whether extension modules can be compiled for the running Python."""
    return Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def has_venv() -> bool:
    """Whether the running Python can make virtual environments (Debian splits that off)."""
    argv = [sys.executable, "-I", "-c", "import venv, ensurepip"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


NEEDS = (
    Need("Python's venv module", (f"{PYTHON}-venv", "python3-venv"), has_venv),
    Need("Python's headers", (f"{PYTHON}-dev", "python3-dev"), has_python_headers),
    Need("a C++ compiler", ("g++",), lambda: compiles("#include <vector>\nint main() {}\n")),
    Need("pkg-config", ("pkg-config",), lambda: shutil.which("pkg-config") is not None),
    Need("OpenCV core and imgproc", ("libopencv-imgproc-dev",), has_opencv),
    Need("libjpeg-turbo", ("libturbojpeg0-dev", "libturbojpeg-dev"), has_turbojpeg),
)


def missing_needs(needs: Sequence[Need] = NEEDS) -> list[Need]:
    """The needs that are not there, in the given order."""
    return [need for need in needs if not need.found()]


def provide(steps: Steps, needs: Sequence[Need] = NEEDS) -> None:
    """Make sure that every need is there, by apt-get where that is possible.

    Raises:
        SetupError: something is missing that only a person can install.
    """
    missing = missing_needs(needs)
    if not missing:
        return
    if not can_install():
        raise SetupError(advice(missing))
    install(steps, missing)
    if still := missing_needs(missing):
        raise SetupError("apt-get succeeded, but still not usable:\n" + advice(still))


def can_install(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether we are root where apt-get is, and not in conda, whose compilers look elsewhere."""
    conda = environment.get("CONDA_PREFIX", "") and sys.prefix.startswith(
        environment["CONDA_PREFIX"]
    )
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and not conda


def install(steps: Steps, missing: Sequence[Need]) -> None:
    """Install the packages of ``missing``, asking for fresh package lists first where needed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if not all(any(map(known_to_apt, need.apt)) for need in missing):
        steps.run("reading apt's package lists", [*APT_GET, "update", "-q"], environment)
    packages = apt_packages(missing, known_to_apt)
    argv = [*APT_GET, "install", "-y", "-q", "--no-install-recommends", *packages]
    try:
        steps.run(f"installing {', '.join(packages)}", argv, environment)
    except SetupError:  # the lists may be older than the archive
        steps.run("reading apt's package lists anew", [*APT_GET, "update", "-q"], environment)
        steps.run(f"installing {', '.join(packages)}", argv, environment)


def known_to_apt(package: str) -> bool:
    """Whether apt could install ``package`` (it answers for names it has only heard of, too)."""
    argv = ["apt-cache", "policy", package]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return "Candidate:" in answer and "Candidate: (none)" not in answer


def apt_packages(missing: Sequence[Need], known: Callable[[str], bool]) -> list[str]:
    """One package a need: the first that ``known`` accepts, else the first of all."""
    return [next(filter(known, need.apt), need.apt[0]) for need in missing]


def advice(missing: Sequence[Need]) -> str:
    """The one message that says what is missing and the lines that mend it."""
    has_cache = shutil.which("apt-cache") is not None
    packages = apt_packages(missing, known_to_apt if has_cache else lambda _: False)
    return (
        f"missing on this system: {', '.join(need.name for need in missing)}. Install with\n"
        f"  Debian, Ubuntu   sudo apt-get install -y --no-install-recommends {' '.join(packages)}\n"
        f"  conda            {CONDA_LINE}\n"
        "and run make again."
    )
