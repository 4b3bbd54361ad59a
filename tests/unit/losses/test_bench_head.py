"""The benchmark of the head over ranks: what it counts, that its ways agree, and its table."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from distill.losses.bench import peak_bytes

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import bench_head
from head_wire import Wire

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
B, D, CLASSES, WORLD = 3, 16, (50, 71), 2


def made_table(folder: Path, name: str, *options: str) -> list[dict[str, str]]:
    """What the command writes of two ranks."""
    sizes = f"--ranks {WORLD} --pairs {B} --width {D} --rounds 1".split()
    command = [sys.executable, str(ROOT / "benchmarks/bench_head.py"), *sizes, *options]
    command += ["--save", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob(f"{name}_*.csv")
    assert path.with_suffix(".png").stat().st_size > 10_000
    return list(csv.DictReader(path.open()))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """A small table, where replicated weights of 71 classes are not allowed."""
    allowed = WORLD * 60 * (4 * 2 * D + 4 * 6 * 2 * B) / 2**30
    options = ("--classes", "50,71", "--memory-gib", repr(allowed))
    return made_table(tmp_path_factory.mktemp("table"), "head", *options)


def test_every_way_at_every_size_with_what_it_was_measured_on(table) -> None:
    names = [bench_head.OURS, bench_head.STORED, bench_head.NONE_KEPT]
    names += [bench_head.SHARDED, bench_head.REPLICATED]
    assert [(int(x["classes"]), x["what"]) for x in table] == [
        (c, n) for c in CLASSES for n in names
    ]
    for line in table:
        assert line["ranks"] == str(WORLD)
        assert line["device"]
        assert line["threads"]
        assert line["torch"] == torch.__version__
        assert line["date"]


def test_bytes_are_those_of_the_tensors_given_away(table) -> None:
    of_50 = {line["what"]: line for line in table[:5]}
    for name in (bench_head.OURS, bench_head.SHARDED):
        line = of_50[name]
        assert float(line["statistics_bytes"]) == 40
        assert float(line["features_bytes"]) == 2 * B * D * 4 + B * 8
        assert float(line["feature_gradient_bytes"]) == WORLD * 2 * B * D * 4
        assert float(line["weight_gradient_bytes"]) == 0
    assert float(of_50[bench_head.OURS]["checks_bytes"]) > 0
    assert float(of_50[bench_head.REPLICATED]["weight_gradient_bytes"]) == 50 * D * 4
    assert float(of_50[bench_head.REPLICATED]["statistics_bytes"]) == 0


def test_without_pairs_the_ways_agree_and_tell_three_numbers_an_image(tmp_path: Path) -> None:
    """The command compares loss and gradient of all ways before it times any."""
    found = made_table(tmp_path, "head-first", "--classes", "51", "--images", "first")
    assert len(found) == 5
    for line in found:
        assert line["images"] == "first"
        whole = line["what"] == bench_head.REPLICATED
        assert float(line["statistics_bytes"]) == (0 if whole else 12)
        assert float(line["features_bytes"]) == (0 if whole else B * D * 4 + B * 8)


def test_what_does_not_fit_is_blank_and_says_why(table) -> None:
    last = table[-1]
    assert last["what"] == bench_head.REPLICATED
    assert not last["ms"]
    assert "--memory-gib" in last["note"]
    assert not any(line["memory_of_replicated"] for line in table[5:])
    assert all(line["note"] == "" for line in table[:-1])


def test_ways_that_differ_are_not_timed() -> None:
    right = (torch.ones(()), torch.ones(2, 2), torch.ones(1))
    wrong = (torch.ones(()), torch.ones(2, 2) * 1.01, torch.ones(1))
    bench_head.agree({"one": lambda: right, "two": lambda: right}, torch.float32)
    with pytest.raises(SystemExit, match="two is 1"):
        bench_head.agree({"one": lambda: right, "two": lambda: wrong}, torch.float32)


@pytest.mark.parametrize(("preset", "kind"), [("quick", "cpu"), ("cpu", "cpu"), ("gpu", "cuda")])
@pytest.mark.parametrize("images", ["pair", "first"])
def test_every_preset_can_be_measured_on_its_device(
    preset: str, kind: str, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_head.py", "--preset", preset, "--images", images])
    args = bench_head.parse()
    for world in args.ranks:
        bench_head.check_rows(args, kind, world)
    with pytest.raises(SystemExit, match="the size of the weight's gradient"):
        bench_head.check_rows(args, "cpu", args.width // args.pairs // bench_head.SIDES[images])


@pytest.mark.parametrize(("kind", "barriers"), [("cpu", 2), ("cuda", 0)])
def test_the_host_waits_for_no_gpu(
    kind: str, barriers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(dist, "barrier", lambda: waited.append(0))
    monkeypatch.setattr(bench_head, "ours", lambda problem: problem)
    steps = bench_head.steps_of({bench_head.OURS: 7}, kind)
    assert steps[bench_head.OURS]() == 7
    assert len(waited) == barriers


def test_the_wire_counts_by_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(dist, "all_reduce", lambda *args: seen.append(args))
    wire = Wire()
    with wire.watching():
        wire.about("statistics")
        dist.all_reduce(torch.zeros(3))
        dist.all_reduce(torch.zeros(5, dtype=torch.uint8))
        wire.about("features")
        dist.all_reduce(torch.zeros(2, dtype=torch.int64))
    dist.all_reduce(torch.zeros(100))
    assert wire.sent == {"statistics": 12, "checks": 5, "features": 16}
    assert wire.calls == {"statistics": 1, "checks": 1, "features": 1}
    assert len(seen) == 4


def test_the_gradient_of_the_weight_is_left_out_of_the_peak() -> None:
    def step() -> torch.Tensor:
        gradient = torch.ones(100)
        return gradient + torch.ones(50).sum()

    assert peak_bytes(step, "cpu") > peak_bytes(step, "cpu", gradient_bytes=400) == 204
