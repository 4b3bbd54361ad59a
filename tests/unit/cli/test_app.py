"""The frame of the command line: how mistakes, interruptions and help look."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from distill.cli import app as program
from distill.demo.story import point_out
from distill.errors import UserError


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pairdistill", *words])
    with pytest.raises(SystemExit) as left:
        program.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def failing_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def command() -> None:
        """Fail."""
        raise error

    monkeypatch.setitem(program.COMMANDS, "doctor", command)


def test_a_mistake_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(monkeypatch, UserError("photos/a\nb [red].jpg: truncated", fix="remove it"))
    assert run_main(monkeypatch, "doctor") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: photos/a\\nb [red].jpg: truncated; remove it\n"


def test_debug_shows_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, UserError("wrong"))
    monkeypatch.setattr(sys, "argv", ["pairdistill", "--debug", "doctor"])
    with pytest.raises(UserError):
        program.main()


def test_ctrl_c_has_the_status_of_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, KeyboardInterrupt())
    assert run_main(monkeypatch, "doctor") == 130


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["train"], ["evaluate"], ["demo", "--ranks", "0"]]
)
def test_wrong_usage_has_status_2(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    assert run_main(monkeypatch, *words) == 2


@pytest.mark.parametrize("command", sorted(program.COMMANDS))
def test_help_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run_main(monkeypatch, command, "--help") == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert f"pairdistill {command}" in text
    assert "Example" in text


def test_sources_are_spelt_the_same_everywhere() -> None:
    commands = typer.main.get_command(program.build_app()).commands
    spelt = {
        name: {
            option.name: (option.opts, option.help, option.default)
            for option in commands[name].params
            if option.name in ("form", "image_column", "identity_column", "root")
        }
        for name in ("pack", "inspect", "gallery")
    }
    assert len(spelt["pack"]) == 4
    assert spelt["pack"] == spelt["inspect"] == spelt["gallery"]


def test_the_module_is_the_same_program() -> None:
    command = [sys.executable, "-m", "distill", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"pairdistill \d+\.\d+\.\d+\n", shown)


@pytest.mark.parametrize(("set_before", "then"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(
    set_before: str | None, then: str
) -> None:
    """libgomp says what it goes by: the variable is there before torch loads it."""
    shows = {"OMP_DISPLAY_ENV": "TRUE", "GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": set_before}
    environment = {k: v for k, v in (os.environ | shows).items() if v is not None}
    program = (
        "import sys; from distill.cli import app; sys.argv = ['pairdistill', '--version']\n"
        "try: app.main()\n"
        "except SystemExit: import torch"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"OMP_WAIT_POLICY = '{then}'" in shown.stderr


def test_settings_are_shown_with_what_changes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    assert run_main(monkeypatch, "train", "--print-config") == 0
    file.write_text(capsys.readouterr().out)
    assert run_main(monkeypatch, "train", str(file), "loss.weight=0.25", "--print-config") == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["loss"]["weight"] == 0.25
    assert shown["optimizer"]["lr"] == 0.1
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.steps=3"], "train.steps=3 does not exist; settings a.b=c come after CONFIG.toml"),
        ([], "error: CONFIG.toml is missing; begin with `pairdistill train --print-config"),
        (["missing.toml"], "error: configuration missing.toml does not exist; check the path"),
        (["{file}", "loss.temprature=2"], "(did you mean loss.temperature?)"),
        (["{file}", "--print-config", "train.zero_stage=9"], "train.zero_stage = 9: must be at"),
        (["{file}"], "error: data.train is empty: there is nothing to train on; make one with"),
        (["{file}", "--ranks", "2", "data.train=/none"], "error: data.train = '/none': no such"),
    ],
)
def test_mistakes_in_the_settings_of_a_training(
    tmp_path: Path, words: list[str], said: str
) -> None:
    """One line, status 2, and nothing written: by the program itself, once with two ranks."""
    file = tmp_path / "run.toml"
    file.write_text('[run]\ndevice = "cpu"\n')
    command = [sys.executable, "-m", "distill", "train", *(w.format(file=file) for w in words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_rank_starts_no_ranks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    settings = tmp_path / "run.toml"
    settings.write_text("")
    words = [str(settings)] if command == "train" else ["run", str(tmp_path)]
    assert run_main(monkeypatch, command, *words, "--ranks", "2") == 2
    told = capsys.readouterr().err
    assert "--ranks 2 in a process that is a rank of WORLD_SIZE = 4 already" in told
    assert "leave --ranks away under torchrun" in told


def test_the_demo_ends_with_a_command_of_this_program(capsys: pytest.CaptureFixture[str]) -> None:
    point_out(Path("runs/demo"), {"similarity": Path("run")}, {"train": 1.0})
    named = re.search(
        r"^TensorBoard: +pairdistill (\w+) runs/demo/runs$", capsys.readouterr().out, re.M
    )
    assert named
    assert named[1] in typer.main.get_command(program.build_app()).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tr", ["train"]),
        ("train --ra", ["--ranks"]),
        ("train run.toml train.pre", ["train.precision="]),
        ("train run.toml checkpoint.keep", ["checkpoint.keep_last=", "checkpoint.keep_best="]),
        ("demo model.n", ["model.name="]),
        ("train run.toml loss.weig", ["loss.weight="]),
        ("train run.toml loss.weight.e", ["loss.weight.end="]),
        ("evaluate runs/a packs/b evaluate.ba", ["evaluate.batch_images="]),
        ("audit runs/a packs/b evaluate.ba", ["evaluate.batch_images="]),
    ],
)
def test_the_shell_completes_commands_options_and_settings(line: str, words: list[str]) -> None:
    """By bash itself, with what --show-completion prints for it."""
    program = shutil.which("pairdistill", path=str(Path(sys.executable).parent))
    assert program, "the program is installed beside the interpreter"
    shown = subprocess.run(
        [program, "--show-completion", "bash"],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ask = f"""
    COMP_WORDS=(pairdistill {line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
    _pairdistill_completion {program}; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", shown + ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == words
