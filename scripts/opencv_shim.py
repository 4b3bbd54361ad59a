"""Lets FFCV build against the two OpenCV modules it uses instead of all of OpenCV.

FFCV's setup asks pkg-config for `opencv4` and includes `opencv2/opencv.hpp`, but calls only
`cv::resize`. On Debian both come with `libopencv-dev` (199 packages, 640 MB); core and imgproc
alone are 17 packages. Where the whole is not there, a folder with an `opencv4.pc` and an umbrella
header that name just the two stands in for it. Standard library only.

    PKG_CONFIG_PATH="$(python scripts/opencv_shim.py)" pip install --no-build-isolation ffcv
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HEADER = "#pragma once\n#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n"
PC_FILE = """\
Name: opencv4
Description: the two OpenCV modules FFCV uses
Version: 4
Cflags: -I{folder} -I/usr/include/opencv4
Libs: -lopencv_imgproc -lopencv_core
"""


def write_shim(folder: Path) -> Path:
    """Write the stand-in below ``folder`` (no spaces: FFCV splits flags at them)."""
    assert " " not in str(folder), folder
    (folder / "opencv2").mkdir(parents=True, exist_ok=True)
    (folder / "opencv2" / "opencv.hpp").write_text(HEADER)
    (folder / "opencv4.pc").write_text(PC_FILE.format(folder=folder))
    return folder


@cache
def build_environment() -> dict[str, str]:
    """The environment in which FFCV builds: this one, with conda's tree or the stand-in."""
    environment = dict(os.environ)
    prefix = environment.get("CONDA_PREFIX")
    if prefix:
        # A wheel built against conda's libraries must find them again when it is imported.
        prepend(
            environment, "PKG_CONFIG_PATH", f"{prefix}/lib/pkgconfig:{prefix}/share/pkgconfig", ":"
        )
        prepend(environment, "LDFLAGS", f"-Wl,-rpath,{prefix}/lib", " ")
    if not whole_opencv(environment):
        folder = shim_folder(keep=__name__ == "__main__")
        prepend(environment, "PKG_CONFIG_PATH", str(write_shim(folder)), ":")
    return environment


def shim_folder(*, keep: bool) -> Path:
    """A new folder whose path has no spaces, whatever the repository's has; gone at exit."""
    folder = Path(tempfile.mkdtemp(prefix="pairdistill-opencv-"))
    if not keep:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def whole_opencv(environment: dict[str, str]) -> bool:
    """Whether pkg-config knows a full OpenCV 4 here."""
    if shutil.which("pkg-config", path=environment.get("PATH")) is None:
        return False
    argv = ["pkg-config", "--exists", "opencv4"]
    return subprocess.run(argv, env=environment, check=False).returncode == 0


def prepend(environment: dict[str, str], name: str, value: str, separator: str) -> None:
    """Put ``value`` in front of the list in the variable ``name``."""
    before = environment.get(name)
    environment[name] = f"{value}{separator}{before}" if before else value


if __name__ == "__main__":
    print(build_environment().get("PKG_CONFIG_PATH", ""))
