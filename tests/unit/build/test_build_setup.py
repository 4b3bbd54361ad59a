"""The set-up: what it asks of the system, what it says when that is missing, what it redoes."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
FIND_PYTHON = ROOT / "scripts" / "find_python.sh"


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("system_needs")


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("setup_environment")


def need(needs: ModuleType, *apt: str, found: bool) -> object:
    return needs.Need(apt[0], apt, lambda: found)


def test_probes_compile_for_real(needs: ModuleType) -> None:
    assert needs.compiles("#include <vector>\nint main() {}\n")
    assert not needs.compiles("#include <no_such_header.hpp>\nint main() {}\n")
    assert not needs.compiles("int main() {}\n", "-lno_such_library")
    assert needs.pkg_config("no-such-package") == []


def test_this_machine_has_what_it_was_set_up_with(needs: ModuleType) -> None:
    assert needs.missing_needs() == []


def test_no_compiler_no_opencv(needs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "build_environment", lambda: {**os.environ, "CXX": "no-such-c++"})
    assert not needs.compiles("int main() {}\n")
    assert not needs.has_opencv()


def test_only_what_is_missing_is_asked_for(needs: ModuleType) -> None:
    both = (need(needs, "there", found=True), need(needs, "away", found=False))
    assert [n.name for n in needs.missing_needs(both)] == ["away"]


def test_ubuntu_and_debian_name_libjpeg_turbo_differently(needs: ModuleType) -> None:
    turbo = [n for n in needs.NEEDS if n.name == "libjpeg-turbo"]
    for name in ("libturbojpeg0-dev", "libturbojpeg-dev"):
        assert needs.apt_packages(turbo, name.__eq__) == [name]
    assert needs.apt_packages(turbo, lambda _: False) == ["libturbojpeg0-dev"]


def test_without_root_one_message_lists_the_lines(
    needs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "known_to_apt", lambda name: name == "b-dev")
    monkeypatch.setattr(needs.os, "geteuid", lambda: 1000)
    missing = (need(needs, "a-dev", "b-dev", found=False), need(needs, "c-dev", found=False))
    monkeypatch.setattr(needs.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(Exception, match="missing on this system: a-dev, c-dev") as caught:
        needs.provide(None, missing)
    text = str(caught.value)
    assert "sudo apt-get install -y --no-install-recommends b-dev c-dev\n" in text
    assert f"{needs.CONDA_LINE}\n" in text


def test_root_in_conda_is_told_rather_than_served_by_apt(
    needs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs.os, "geteuid", lambda: 0)
    monkeypatch.setattr(needs.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert needs.can_install({})
    assert needs.can_install({"CONDA_PREFIX": "/opt/some-other-conda"})
    assert not needs.can_install({"CONDA_PREFIX": sys.prefix})


def test_apt_is_asked_for_fresh_lists_when_it_knows_no_name(
    needs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    class Recorder:
        def run(self, title: str, argv: list[str], env: dict[str, str]) -> None:
            assert env["DEBIAN_FRONTEND"] == "noninteractive"
            commands.append([word for word in argv if not word.startswith(("-", "DPkg"))])

    monkeypatch.setattr(needs, "known_to_apt", lambda _: len(commands) > 0)
    needs.install(Recorder(), [need(needs, "a-dev", found=False)])
    assert commands == [["apt-get", "update"], ["apt-get", "install", "a-dev"]]


def test_the_stand_in_answers_where_opencv_is_partly_there(tmp_path: Path) -> None:
    """Debian's imgproc alone has no opencv4.pc: pkg-config then finds ours."""
    environment = {**os.environ, "PKG_CONFIG_LIBDIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment.pop("PKG_CONFIG_PATH", None)
    script = [sys.executable, str(ROOT / "scripts" / "opencv_shim.py")]
    path = subprocess.run(
        script, capture_output=True, text=True, check=True, env=environment
    ).stdout
    environment["PKG_CONFIG_PATH"] = path.strip()
    asked = ["pkg-config", "--cflags", "--libs", "opencv4"]
    flags = subprocess.run(
        asked, capture_output=True, text=True, check=True, env=environment
    ).stdout
    include, *_ = [flag[2:] for flag in flags.split() if flag.startswith("-I")]
    assert Path(include, "opencv2", "opencv.hpp").is_file()
    assert {"-lopencv_imgproc", "-lopencv_core"} <= set(flags.split())


def test_in_conda_its_libraries_are_found_now_and_at_run_time(
    monkeypatch: pytest.MonkeyPatch, needs: ModuleType
) -> None:
    monkeypatch.setenv("CONDA_PREFIX", "/opt/env")
    monkeypatch.setenv("LDFLAGS", "-Lmine")
    environment = importlib.import_module("opencv_shim").build_environment.__wrapped__()
    assert "/opt/env/lib/pkgconfig" in environment["PKG_CONFIG_PATH"].split(":")
    assert environment["LDFLAGS"] == "-Wl,-rpath,/opt/env/lib -Lmine"


def test_a_whole_opencv_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "opencv4.pc").write_text("Name: opencv4\nDescription: whole\nVersion: 4.9\n")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(tmp_path)}
    script = [sys.executable, str(ROOT / "scripts" / "opencv_shim.py")]
    answer = subprocess.run(script, capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip().split(":")[-1] == str(tmp_path)
    assert "pairdistill-opencv" not in answer.stdout


def test_pins_are_read_with_markers_and_without_includes(setup: ModuleType) -> None:
    text = "# note\na==1\nB-c==2.0; python_version < '3.12'\n\n-c more.txt\nd==3  # why\n"
    pins = {"a": "a==1", "b-c": "B-c==2.0; python_version < '3.12'", "d": "d==3"}
    assert setup.read_pins(text) == pins


def test_the_trial_asks_for_the_pinned_torch(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("ffcv", "cv2"):
        monkeypatch.setitem(sys.modules, slow, ModuleType(slow))
    pin = setup.read_pins(setup.CONSTRAINTS.read_text())["torch"]
    exec(setup.trial(pin), {})
    with pytest.raises(AssertionError):
        exec(setup.trial(f"{pin}1"), {})


def test_a_changed_kernel_rebuilds_only_ourselves(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "CONSTRAINTS", tmp_path / "constraints.txt")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "constraints.txt").write_text("a==1\n")
    kernel = tmp_path / "kernels" / "loss.cpp"
    kernel.write_text("1")
    before = setup.wanted_stamp()
    assert setup.wanted_stamp() == before
    kernel.write_text("2")
    after_kernel = setup.wanted_stamp()
    assert after_kernel["packages"] == before["packages"]
    assert after_kernel["ourselves"] != before["ourselves"]
    (tmp_path / "constraints.txt").write_text("a==2\n")
    assert setup.wanted_stamp()["packages"] != before["packages"]


def test_unreadable_stamps_count_as_none(setup: ModuleType, tmp_path: Path) -> None:
    for text in ("", "{", "[]", "null"):
        setup.stamp_file(tmp_path).write_text(text)
        assert setup.read_stamp(tmp_path) == {}


def test_settings_that_lead_out_of_the_environment_are_dropped(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = {"PIP_TARGET": "/elsewhere", "PYTHONPATH": "/mine", "PIP_FIND_LINKS": "/wheels"}
    monkeypatch.setattr(setup, "build_environment", lambda: dict(outside))
    environment = setup.pip_environment()
    assert environment["PIP_FIND_LINKS"] == "/wheels"
    assert not {"PIP_TARGET", "PYTHONPATH"} & set(environment)


def test_an_environment_of_another_python_is_kept(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.9.18\n")
    with pytest.raises(Exception, match=r"made with Python 3\.9.*make distclean"):
        setup.refuse_other_python(tmp_path)
    venv.create(tmp_path / "same", with_pip=False)
    setup.refuse_other_python(tmp_path / "same")
    setup.refuse_other_python(tmp_path / "none")
    assert not setup.works(tmp_path / "same")  # it has no pip


def fake_python(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def find_python(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(path)}
    argv = ["/bin/sh", str(FIND_PYTHON), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)


def test_a_shim_that_fails_is_passed_over(tmp_path: Path) -> None:
    """A version manager's `python3.11` may exist and fail when run."""
    fake_python(tmp_path, "python3.11", "echo 'command not found in this version' >&2; exit 127")
    fake_python(tmp_path, "python3.12", f'exec "{sys.executable}" "$@"')
    answer = find_python(tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.strip() == sys.executable


def test_a_named_python_is_used_or_refused(tmp_path: Path) -> None:
    assert find_python(tmp_path, sys.executable).stdout.strip() == sys.executable
    fake_python(tmp_path, "old", "echo")
    refused = find_python(tmp_path, "old")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: PYTHON=old is not a Python 3.11 to 3.14 that runs")


@pytest.mark.parametrize("asks", ["scripts/find_python.sh", "distill/doctor/machine.py"])
def test_the_same_pythons_are_taken_everywhere(asks: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least, beyond = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    assert re.findall(r"\(3, (\d+)\)", (ROOT / asks).read_text()) == [str(least), str(beyond - 1)]
    assert f"3.{least} to 3.{beyond - 1}" in (ROOT / "README.md").read_text()


def test_without_python_the_message_says_how_to_get_one(tmp_path: Path) -> None:
    for name in ("python3.11", "python3.12", "python3.13", "python3.14", "python3", "python"):
        fake_python(tmp_path, name, "exit 1")
    answer = find_python(tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "apt-get install python3.1" in answer.stderr
    assert "conda create" in answer.stderr


def test_our_own_environment_comes_first(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.11", "echo /another/python")
    assert find_python(tmp_path, "", sys.executable).stdout.strip() == sys.executable


def test_a_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    """Those that git knows; from the sources, or installed in place, none could be missing."""
    # A fresh list of sources: an older one beside the sources would be believed.
    listing = ["egg_info", "--egg-base", str(tmp_path)]
    build = ["build_py", "--build-lib", str(tmp_path)]
    setup = [sys.executable, "setup.py", "--quiet", *listing, *build]
    subprocess.run(setup, cwd=ROOT, check=True, capture_output=True)
    tracked = subprocess.run(
        ["git", "ls-files", "distill", "launcher"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert "distill/demo/demo.toml" in tracked
    assert [name for name in tracked if not (tmp_path / name).is_file()] == []
