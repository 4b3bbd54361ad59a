"""A report and its picture are of one evaluation, also where the disk has room for one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rank_processes import python

FULL = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
from distill.demo.arms import ARMS
from distill.demo.story import compare
from distill.errors import UserError
from distill.evaluate.folder import write_report
from distill.evaluate.report import Condition, Identification, Report, Verification
from distill.evaluate.set_report import SetReport, write_set_report
from distill.evaluate.sets import SetResult

found = Verification(4, 4, 4, 4, auc=0.5, eer=0.5, curve=[[0.1, 0.1], [1.0, 1.0]])
clean = Condition("clean", Identification(4, 0.5, None, 0.5, None), found)
manifest = SimpleNamespace(kinds=["blur"], photographs=4)
numbers = {arm.name: {"clean/top1": 0.5, "blur/top1": 0.25, "blur/agreement": 0.5} for arm in ARMS}


def write_comparison(found, folder):
    runs = dict.fromkeys(found, folder)
    compare(folder, SimpleNamespace(manifest=manifest), runs, found, {"machine": {}})


common = {"checkpoint": {}, "config": {}, "ranks": 1}
made = {
    "report": (write_report, Report([clean], 4, 2, 2, {}, **common)),
    "demo": (write_comparison, numbers),
    "sets": (write_set_report, SetReport([SetResult("lfw", 4, 1.0, found)], **common)),
}
write, report = made[sys.argv[1]]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    write(report, Path(sys.argv[2]))
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(
    ("name", "file"), [("report", "report"), ("sets", "sets"), ("demo", "report")]
)
def test_both_files_are_new_or_neither(tmp_path: Path, name: str, file: str) -> None:
    """The system refuses files as large as the picture, not the much smaller numbers."""
    numbers, picture = tmp_path / f"{file}.json", tmp_path / f"{file}.png"
    for before in (numbers, picture):
        before.write_text("before")
    said = {}
    for limit in (10_000, 10_000_000):
        said[limit] = python("-c", FULL, name, str(tmp_path), str(limit)).stderr
        sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        assert sizes.keys() == {numbers.name, picture.name}
        if limit == 10_000:
            assert set(sizes.values()) == {len("before")}
    assert said[10_000].startswith(f"{picture}: disk full (File too large)")
    assert said[10_000_000] == ""
    assert len("before") < sizes[numbers.name] < 10_000 < sizes[picture.name]
