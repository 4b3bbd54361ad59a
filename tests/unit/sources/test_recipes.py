"""The recipes: the pack that their first command makes is the one that their settings name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner
from written import jpeg, record_file

from distill.cli.app import build_app
from distill.config import load_config
from distill.data.manifest import read_pack
from distill.data.pack.spool import ROW

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_makes_the_pack_of_the_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of patterns without a face, as aligned faces are taken: nothing may look for one."""
    monkeypatch.chdir(tmp_path)
    record_file(tmp_path / name, [(i // 2, jpeg(i, 112)) for i in range(8)], people=4)
    path = ROOT / "recipes" / f"{name}.toml"
    command = re.search(r"^# +pairdistill (pack .*)$", path.read_text(), re.MULTILINE)
    assert command is not None
    done = CliRunner().invoke(build_app(), [*shlex.split(command.group(1)), "--workers", "1"])
    assert done.exit_code == 0, done.exception
    config = load_config(path)
    pack = read_pack(Path(str(config.data.train)))
    assert (pack.manifest.pairs, len(pack.manifest.identities)) == (8, 4)
    assert pack.manifest.second == config.data.second == "online"


@pytest.mark.parametrize("name", RECIPES)
def test_the_room_that_packing_takes_is_that_of_all_faces(name: str) -> None:
    text = (ROOT / "recipes" / f"{name}.toml").read_text()
    images = re.search(r"^# \w+: ([\d,]+) images of", text)
    said = re.search(r"Packing takes ([\d.]+) ([GT])B beside the pack", text)
    assert images is not None and said is not None
    takes = int(images.group(1).replace(",", "")) * ROW.itemsize
    assert float(said.group(1)) * {"G": 1e9, "T": 1e12}[said.group(2)] == pytest.approx(takes, 5e-3)
    assert f"{ROW.itemsize:,} bytes" in text
