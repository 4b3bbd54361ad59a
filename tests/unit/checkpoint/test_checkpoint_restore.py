"""Trained weights come into the network and nowhere else: the peak is the model itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distill.config import Config, parse_overrides
from distill.models.classifier import build_classifier
from distill.trained import restore

MIB = 2**20
CLASSES, HEAD = 20_000, 39 * MIB
"""Rows of 512 numbers, and about their bytes."""

LIMITED = """
import re, resource, sys
from pathlib import Path
from distill.trained import restore, restore_backbone

small, large, spare = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
work = {"restore": restore, "restore_backbone": restore_backbone}[sys.argv[1]]
work(small)  # whatever is made once is there
held = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (held + large.stat().st_size + spare,) * 2)
work(large)
"""


def exported(path: Path, classes: int) -> Path:
    """A network as a run exports it, written by the library."""
    config = Config.model_validate(parse_overrides(["model.name=tiny", "model.embedding_dim=512"]))
    names = [f"p{number}" for number in range(classes)]
    about = {
        "format": "pairdistill-weights-1",
        "config": config.model_dump_json(),
        "identities": json.dumps(names),
        "step": "3",
        "run_id": "run",
    }
    torch.manual_seed(classes)
    save_file(build_classifier(config, classes).state_dict(), path, about)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return exported(folder / "small", 2), exported(folder / "large", CLASSES)


def left_by(work: str, files: tuple[Path, Path], spare: int) -> str:
    """What a process said that may take ``spare`` bytes, the mapped file aside."""
    argv = [sys.executable, "-c", LIMITED, work, *map(str, files), str(spare)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    return "" if done.returncode == 0 else done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("work", "spare", "enough"),
    [
        ("restore", HEAD + 24 * MIB, True),
        ("restore", HEAD - 4 * MIB, False),  # so the limit is one
        ("restore_backbone", 24 * MIB, True),
    ],
)
def test_nothing_but_the_model_is_in_memory(files, work: str, spare: int, enough: bool) -> None:
    said = left_by(work, files, spare)
    assert (said == "") == enough, said
    assert enough or "allocate memory" in said


def test_all_of_it_comes_back(files) -> None:
    small, _ = files
    config = Config.model_validate(parse_overrides(["model.name=tiny", "model.embedding_dim=512"]))
    torch.manual_seed(2)
    expected, found = build_classifier(config, 2).state_dict(), restore(small)
    assert (found.step, found.identities) == (3, ["p0", "p1"])
    given = found.model.state_dict()
    assert expected.keys() == given.keys()
    assert all(torch.equal(given[name], tensor) for name, tensor in expected.items())
