"""Exported weights: the library's own bytes, and never a whole tensor in memory."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from distill.checkpoint import (
    Manifest,
    TrainState,
    export_weights,
    find,
    gather,
    open_weights,
    save,
    tensor_file,
)
from distill.checkpoint.manifest import TensorEntry, parts_of
from distill.checkpoint.shard import ShardLabel, ShardWriter
from distill.checkpoint.tensor_file import TensorWriter, specs_of
from distill.config import Config
from distill.errors import UserError
from distill.milestones import finish

HEAD = "weight/head.weight"
MIB = 2**20


def by_ranks(folder, wholes, bounds, identities):
    """A checkpoint of which each rank has written its rows of the head, and rank 0 the rest."""
    step, files, tensors = 7, {}, {}
    path = folder / f"step-{step:08d}"
    path.mkdir(parents=True)
    parts = parts_of(HEAD, bounds)
    for rank, part in enumerate(parts):
        mine = {part.key: wholes[HEAD][part.first : part.stop]}
        mine |= {} if rank else {key: t for key, t in wholes.items() if key != HEAD}
        label = ShardLabel("run-a", step, rank, len(parts))
        with ShardWriter(path / label.file_name, specs_of(mine), label) as writer:
            for tensor in mine.values():
                writer.add(tensor)
        files[label.file_name] = writer.entry
        tensors |= {
            spec.key: TensorEntry(
                file=label.file_name, dtype=spec.dtype_name, shape=list(spec.shape)
            )
            for spec in specs_of(mine)
        }
    Manifest(
        run_id="run-a",
        step=step,
        world_size=len(parts),
        zero_stage=0,
        moments=[],
        counters={},
        train_state={},
        config={"model": {"name": "tiny"}},
        identities=list(identities),
        data_digest="digest-1",
        files=files,
        tensors=tensors,
        ranges={HEAD: list(bounds)},
        versions={},
        written="2026-11-24",
    ).sealed().write(path)
    return path


@pytest.fixture
def wholes():
    draw = torch.Generator().manual_seed(0)
    return {
        "weight/backbone.bias": torch.randn(3, generator=draw),
        "buffer/bn.num_batches_tracked": torch.tensor(41),
        "buffer/bn.flags": torch.tensor([True, False, True]),
        "buffer/bn.bytes": torch.arange(5, dtype=torch.uint8),
        HEAD: torch.randn(11, 4, generator=draw),
        "weight/backbone.weight": torch.randn(3, 2, 2, generator=draw),
    }


def header_and_data(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


@pytest.mark.parametrize("bounds", [(0, 11), (0, 4, 8, 11)])
def test_the_bytes_are_those_of_the_library(tmp_path, wholes, bounds):
    """All but the order of the header's own words, which the library leaves to chance."""
    identities = [f"çelik {number}" for number in range(11)]
    checkpoint = by_ranks(tmp_path, wholes, bounds, identities)
    exported = export_weights(checkpoint, tmp_path / "model.safetensors")
    tensors = {key.split("/", 1)[1]: tensor for key, tensor in wholes.items()}
    about = {
        "format": "pairdistill-weights-1",
        "config": '{"model": {"name": "tiny"}}',
        "identities": json.dumps(identities),
        "step": "7",
        "run_id": "run-a",
    }
    save_file(tensors, tmp_path / "theirs.safetensors", about)
    ours, theirs = (header_and_data(p) for p in (exported, tmp_path / "theirs.safetensors"))
    assert ours == theirs
    assert exported.stat().st_size == (tmp_path / "theirs.safetensors").stat().st_size
    back = load_file(exported)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_equal_exports_are_equal_to_the_byte(tmp_path, wholes):
    checkpoint = by_ranks(tmp_path, wholes, (0, 4, 11), ["a"] * 11)
    one, two = (export_weights(checkpoint, tmp_path / name).read_bytes() for name in ("1", "2"))
    assert one == two


LIMITED = """
import re, resource, sys
from pathlib import Path
from types import SimpleNamespace
from distill.checkpoint import export_weights
from safetensors.torch import load_file

small, checkpoint, spare = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
load = lambda path: [t.clone() for f in path.glob("*.safetensors") for t in load_file(f).values()]
export = lambda path: export_weights(path, path / "out")
work = {"export": export, "load": load}[sys.argv[4]]
work(small)  # whatever is made once is there
held = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
mapped = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
resource.setrlimit(resource.RLIMIT_DATA, (held + mapped + spare,) * 2)
work(checkpoint)
"""


def test_no_part_of_the_head_is_ever_in_memory(tmp_path, wholes):
    """The system refuses more than a fraction of one rank's rows, the mapped files aside."""
    small = by_ranks(tmp_path / "small", wholes, (0, 4, 11), ["a"] * 11)
    rows = 40 * MIB // 256
    wholes[HEAD] = torch.arange(64.0 * rows).view(rows, 64)
    large = by_ranks(tmp_path / "large", wholes, (0, rows // 2, rows), ["a"])
    done = {}
    for what in ("export", "load"):  # loading takes the memory: so the limit is one
        argv = [sys.executable, "-c", LIMITED, str(small), str(large), str(8 * MIB), what]
        done[what] = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    assert done["export"].returncode == 0, done["export"].stderr
    assert torch.equal(load_file(large / "out")["head.weight"], wholes[HEAD])
    assert done["load"].returncode != 0
    assert "allocate memory" in done["load"].stderr


def test_what_was_there_stays_where_the_disk_is_full(tmp_path, wholes, monkeypatch):
    out, checkpoint = tmp_path / "model.safetensors", by_ranks(tmp_path, wholes, (0, 11), ["a"])
    out.write_bytes(b"before")
    calls = itertools.count()
    original = TensorWriter.write

    def full(self, data):
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, data)

    monkeypatch.setattr(TensorWriter, "write", full)
    with pytest.raises(UserError, match=r"model\.safetensors: disk full \(No space left"):
        export_weights(checkpoint, out)
    assert out.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {out.name, checkpoint.name}


def test_what_a_killed_export_left_is_replaced(save_steps, tmp_path):
    (path,) = save_steps(1)
    left = tmp_path / ".model.safetensors.partial"
    left.write_bytes(b"half")
    assert len(load_file(export_weights(path, tmp_path / "model.safetensors"))) == 5
    assert not left.exists()


def test_names_that_no_header_takes_are_a_tensor(engine_of, facts, tmp_path, monkeypatch):
    """The library takes 100 MB; up to there files are as they were."""
    people = ["ann", 'o"hara', "\N{SNOWMAN} \U0001f600", ""]
    facts = dataclasses.replace(facts, identities=people)
    path = save(tmp_path, engine_of(1), TrainState(1), facts)
    usual = export_weights(path, tmp_path / "usual.safetensors")
    size = int.from_bytes(usual.read_bytes()[:8], "little")
    found = {}
    for most in (size, size - 1):
        monkeypatch.setattr(tensor_file, "LONGEST_HEADER", most)
        out = export_weights(path, tmp_path / f"{most}.safetensors")
        with safe_open(out, "pt") as file:
            about = file.metadata()
        found[most] = load_file(out)
        with ExitStack() as stack:
            stored = open_weights(out, stack)
            assert stored.identities == people
            assert set(stored.shapes) == set(stored.keys) == set(load_file(usual))
    assert (tmp_path / f"{size}.safetensors").read_bytes() == usual.read_bytes()
    assert about["format"] == "pairdistill-weights-2" and "identities" not in about
    names = found[size - 1].pop("identities.json")
    assert json.loads(bytes(names.tolist())) == people
    assert_close(found[size - 1], found[size], rtol=0, atol=0)


def test_a_header_of_all_names_is_made_once(save_steps, tmp_path, monkeypatch):
    """Of two million people it takes half a second."""
    (path,) = save_steps(1)
    made, real = [], tensor_file._header_text
    monkeypatch.setattr(
        tensor_file, "_header_text", lambda *about: (made.append(about), real(*about))[1]
    )
    export_weights(path, tmp_path / "model.safetensors")
    assert len(made) == 1


def test_a_header_that_the_library_would_not_read_is_refused(
    engine_of, facts, tmp_path, monkeypatch
):
    path = save(tmp_path, engine_of(1), TrainState(1), facts)
    monkeypatch.setattr(tensor_file, "LONGEST_HEADER", 200)
    with pytest.raises(UserError, match=r"a header of \d+ bytes, and safetensors takes 200"):
        export_weights(path, tmp_path / "model.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_at_its_end_a_run_writes_weights_with_signs_of_life_and_reads_no_moments(
    save_steps, tmp_path, monkeypatch
):
    """On a slow disk: the watchdog would end it, and each start after that."""
    (path,) = save_steps(1)
    expected = export_weights(path, tmp_path / "model.safetensors")
    run = SimpleNamespace(weights=tmp_path / "end.safetensors", complete=tmp_path / "complete.json")
    about = {"evaluates": False, "train": SimpleNamespace(digest="digest-1")}
    signs = []
    job = SimpleNamespace(
        config=Config(),
        plan=SimpleNamespace(run=run, **about),
        monitor=SimpleNamespace(say=lambda _: None),
        watchdog=SimpleNamespace(
            mark=lambda *_: None,
            touch=lambda: signs.append(1),
            waiting_for=lambda _: nullcontext(),
        ),
        ranks=SimpleNamespace(is_first=True),
        saved=(1, path),
    )
    monkeypatch.setattr(gather, "WINDOW_ELEMENTS", 8)
    monkeypatch.setattr(find, "verify_file", lambda *_: pytest.fail("all of it was read again"))
    finish(job, TrainState(1))
    assert run.weights.read_bytes() == expected.read_bytes()
    elements = [tensor.numel() for tensor in load_file(expected).values()]
    assert len(signs) == sum(-(-count // 8) for count in elements)
