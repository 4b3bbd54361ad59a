"""The examination: rows for what works, a fix for what does not, a status that scripts can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from distill import gpus
from distill.cli.doctor import doctor_command
from distill.doctor import loss as doctor_loss
from distill.doctor import machine as doctor


def invoke(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(doctor_command)
    answer = CliRunner().invoke(app, list(arguments))
    return answer.exit_code, answer.stdout


def pretend(monkeypatch: pytest.MonkeyPatch, *checks: doctor.Check) -> None:
    monkeypatch.setattr(doctor, "run_checks", lambda: iter(checks))


WORKS = doctor.Check("first part", ok=True, found="1.0")
ABSENT = doctor.Check("extra", ok=False, found="not installed", fix="pip it", needed=False)
FAILS = doctor.Check("second part", ok=False, found="[red]gone[/]", fix="put it back")


def test_what_is_not_needed_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, WORKS, ABSENT)
    status, text = invoke()
    assert status == 0
    assert "absent" in text
    assert "Everything needed works." in text


def test_a_failing_part_has_its_fix_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, WORKS, FAILS)
    status, text = invoke()
    assert status == 1
    assert "fix: put it back" in text
    assert "Not working: second part." in text
    assert "[red]gone[/]" in text  # what was found is shown as it is, never as markup


def test_json_holds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, WORKS, FAILS)
    status, text = invoke("--json")
    answer = json.loads(text)
    assert status == 1
    assert answer["ok"] is False
    assert answer["checks"][1] == {
        "name": "second part",
        "ok": False,
        "found": "[red]gone[/]",
        "fix": "put it back",
        "needed": True,
    }


def test_a_library_that_crashes_is_a_row() -> None:
    seen = doctor.probe("import os; os.kill(os.getpid(), 11)")
    row = doctor._import_check("thing", seen, "mend it")
    assert (row.ok, row.found, row.fix) == (False, "crashed with signal 11", "mend it")


def test_a_library_that_is_missing_is_named() -> None:
    row = doctor._import_check("thing", doctor.probe("import no_such_library"), "mend it")
    assert row.found == "ModuleNotFoundError: No module named 'no_such_library'"


def test_a_probe_that_hangs_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROBE_TIMEOUT_SECONDS", 0.2)
    row = doctor._import_check("thing", doctor.probe("import time; time.sleep(60)"), "mend it")
    assert "no answer within" in row.found


def test_an_unwritable_temporary_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.tempfile, "tempdir", "/no/such/folder")
    row = doctor.check_temporary()
    assert not row.ok
    assert "/no/such/folder" in row.found
    assert "TMPDIR" in row.fix


def test_cores_are_those_of_the_affinity() -> None:
    row = doctor.check_cores()
    assert row.found.startswith(f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable")


def test_ranks_that_cannot_meet_say_why() -> None:
    broken = {"GLOO_SOCKET_IFNAME": "no-such-card"}
    answer = doctor.run([sys.executable, "-m", "distill.doctor.ring"], broken)
    assert answer.returncode != 0
    assert "no-such-card" in answer.stderr


def test_a_native_loss_that_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = doctor_loss.pair_loss_and_grad

    def wrong(*args: object, implementation: str, **options: object) -> object:
        answer = right(*args, implementation="reference", **options)
        if implementation == "native":
            answer.grad_second[3, 4999] += 2e-4
        return answer

    monkeypatch.setattr(doctor_loss, "pair_loss_and_grad", wrong)
    with pytest.raises(RuntimeError, match=r"is wrong on cpu: 2\.0e-04 off plain torch"):
        doctor_loss.try_on("cpu")
    monkeypatch.setattr(doctor_loss, "try_on", lambda device: print("tried on", device))
    info = doctor_loss.implementation_info()
    for gpu in (False, True):
        monkeypatch.setattr(doctor_loss.torch.cuda, "is_available", lambda gpu=gpu: gpu)
        for built in ((), ("cpu",), ("cpu", "cuda")):
            told = replace(info, native_devices=built)
            monkeypatch.setattr(doctor_loss, "implementation_info", lambda told=told: told)
            slow = gpu and built == ("cpu",)
            assert doctor_loss.main() == (doctor.SLOW_ON_GPU if slow else 0 if built else 1)
            words = capsys.readouterr().out
            for device in ("cpu", "cuda"):
                here = device == "cpu" or gpu
                assert (f"tried on {device}" in words) == (here and device in built)
                assert (f"not built for {device}" in words) == (here and device not in built)


def test_a_failing_native_loss_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = doctor.check_native_loss()
    assert row.ok == ("right on cpu" in row.found)
    answer = subprocess.CompletedProcess([], 1, "", "Traceback\nRuntimeError: the driver is old\n")
    monkeypatch.setattr(doctor, "run", lambda _argv: answer)
    row = doctor.check_native_loss()
    assert (row.ok, row.found) == (False, "RuntimeError: the driver is old")
    assert "PAIRDISTILL_CUDA=0" in row.fix


def test_a_native_loss_that_is_not_built_for_the_gpu_here_is_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "pair loss: native for cpu (avx2); right on cpu; not built for cuda, which is here\n"
    answer = subprocess.CompletedProcess([], doctor.SLOW_ON_GPU, said, "")
    monkeypatch.setattr(doctor, "run", lambda _argv: answer)
    row = doctor.check_native_loss()
    assert (row.ok, row.needed, row.found) == (False, False, said.strip())
    assert "module load cuda" in row.fix and "make setup" in row.fix


@pytest.mark.parametrize(
    ("content", "found"),
    [("#!/bin/sh\necho no licence >&2\nexit 3\n", "no licence"), ("", "Exec format error")],
)
def test_a_cuda_compiler_that_does_not_run_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, found: str
) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(content or "\x7fELF of another machine")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    row = doctor.check_cuda()
    assert not row.ok and str(nvcc) in row.found and found in row.found
    assert "install the CUDA toolkit" in row.fix


def test_a_folder_of_its_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_such_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    row = doctor._installed("thing", "no_such_library", "pip it")
    assert (row.ok, row.found, row.fix) == (False, "no_such_library is not installed", "pip it")


@pytest.mark.parametrize(("version", "ok"), [("2.10.1+cpu", False), ("2.11.0", True)])
def test_torch_is_asked_for_its_version_whatever_others_say(
    monkeypatch: pytest.MonkeyPatch, version: str, ok: bool
) -> None:
    said = f"A plugin greets you.\n{version} built for CPU, no CUDA device\n"
    monkeypatch.setattr(
        doctor, "run", lambda *_: subprocess.CompletedProcess([], 0, stdout=said, stderr="")
    )
    row = doctor.check_torch()
    assert (row.ok, row.found) == (ok, f"{version} built for CPU, no CUDA device")


def test_gpus_that_torch_does_not_see_are_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch itself says why; where there is no GPU it is not asked."""
    said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\n"
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    row = doctor.check_gpus()
    assert (row.ok, row.found, row.fix) == (True, "no NVIDIA driver here", "")
    gpus.DRIVER.write_text(said)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    row = doctor.check_gpus()
    words = "NVIDIA driver 550.54.15, and no GPU is given to this process"
    assert (row.ok, row.found) == (True, words)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    there = f"from distill import gpus; gpus.DRIVER = gpus.Path({str(gpus.DRIVER)!r})"
    probe = doctor.probe
    monkeypatch.setattr(doctor, "probe", lambda code: probe(f"{there}; {code}"))
    row = doctor.check_gpus()
    if torch.cuda.is_available():
        assert (row.ok, row.found) == (True, "NVIDIA driver 550.54.15, and torch can use it")
        return
    words = "NVIDIA driver 550.54.15 is here, and torch sees no CUDA device: torch "
    assert not row.ok and row.found.startswith(words), row.found
    assert "apptainer --nv" in row.fix and "CONTRIBUTING.md" in row.fix


def test_every_needed_part_of_this_machine_works(tmp_path: Path) -> None:
    """The real thing, as a user calls it, away from the repository."""
    argv = [sys.executable, "-m", "distill", "doctor", "--json"]
    seen = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    answer = json.loads(seen.stdout)
    failing = [row for row in answer["checks"] if row["needed"] and not row["ok"]]
    assert failing == []
    assert seen.returncode == 0
    assert len(answer["checks"]) == len(doctor.CHECKS)
