"""Files that are whole or not there: what a killed process leaves is removed by the next."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import UserError
from distill.files import check_room_for, whole_file, whole_files

KILLED = """
import os, signal, sys
from pathlib import Path
from distill.files import whole_file, whole_files
with whole_files(Path("face[1].onnx")) as folder, whole_file(Path("report.json")) as partial:
    (folder / "face[1].onnx").write_text("half")
    partial.write_text("half")
    print("writes", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_killed_process_left_is_removed_and_no_living_ones(
    tmp_path: Path, ends: bool
) -> None:
    words = [sys.executable, "-c", KILLED]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"writes\n"
        if ends:
            other.kill()
            other.wait()
        elsewhere = {".face[1].onnx.mine.partial", f".report.json.node7-{other.pid}.partial"}
        for name in elsewhere:  # of other makers, who may live
            (tmp_path / name).touch()
        face, report = tmp_path / "face[1].onnx", tmp_path / "report.json"
        with whole_files(face) as folder, whole_file(report) as partial:
            (folder / face.name).write_text("whole")
            partial.write_text("whole")
        left = {path.name for path in tmp_path.iterdir()} - {face.name, report.name}
        assert (face.read_text(), report.read_text()) == ("whole", "whole")
        assert len(left) == len(elsewhere) + (0 if ends else 2)
        assert elsewhere <= left
        other.kill()


def test_a_file_that_its_disk_has_no_room_for_is_refused(tmp_path: Path) -> None:
    check_room_for(tmp_path / "e.npz", 1000)
    too_much = shutil.disk_usage(tmp_path).total + 1
    with pytest.raises(
        UserError, match=r"e\.npz: [\d.e+]+ GB are needed, and [\d.e+]+ GB are free"
    ):
        check_room_for(tmp_path / "e.npz", too_much)
