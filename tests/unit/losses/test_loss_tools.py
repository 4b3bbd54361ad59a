"""The benchmark and the error tables run, and the polynomial in the sources is the one they fit."""

from __future__ import annotations

import csv
import re
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from distill.losses import PairLossSpec, bench, bench_clock, bench_peers, error_tables, reference

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import needs_native

ROOT = Path(__file__).parents[3]


COLUMNS = {
    *("device", "similarity", "dtype", "temperature", "pairs", "classes", "what", "ms", "gb_s"),
    *(
        "least_ms",
        "copy_gb_s",
        "share_of_copy",
        "peak_mb",
        "peak_bytes_per_logit",
        "times_native",
        "load",
    ),
    *("note", "driver", "torch", "cuda", "liger-kernel", "quack-kernels", "build", "date"),
}
NUMBERS = (
    "ms",
    "least_ms",
    "gb_s",
    "share_of_copy",
    "peak_mb",
    "peak_bytes_per_logit",
    "times_native",
)
OURS = ("forward+backward", "loss and gradient", "the same in place")


def run_benchmark(folder: Path, *options: str) -> tuple[list[dict[str, str]], Path]:
    bench.main(
        ["--pairs", "2", "--types", "float32", "--rounds", "1", "--save", str(folder), *options]
    )
    (path,) = folder.glob("*.csv")
    return list(csv.DictReader(path.open())), path


@needs_native
def test_benchmark_prints_a_line_for_each_case_and_writes_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--classes", "50,70", "--similarities", "kl"]
    lines, path = run_benchmark(tmp_path / "new", *options)
    out = capsys.readouterr().out
    assert out.count("kl | float32") == len(lines) == 14
    assert str(path) in out
    assert set(lines[0]) == COLUMNS
    assert path.name.endswith(f"-threads_{lines[0]['date']}.csv")
    assert [line["classes"] for line in lines] == ["50"] * 7 + ["70"] * 7
    measured = [line for line in lines if line["what"] in (*OURS, "plain")]
    assert len(measured) == 8
    for line in measured:
        assert float(line["ms"]) == float(line["least_ms"]) > 0  # of one round
        assert not line["note"]
        share = float(line["gb_s"]) / float(line["copy_gb_s"])
        assert float(line["share_of_copy"]) == pytest.approx(share, rel=2e-3)
        sweeps = 4 if line["what"] in OURS[1:] else 6
        moved = sweeps * 2 * int(line["classes"]) * 4 / 1e6
        assert float(line["gb_s"]) * float(line["ms"]) == pytest.approx(moved, rel=2e-3)
    of_50 = {line["what"]: float(line["peak_bytes_per_logit"]) for line in measured[:4]}
    rows = 2 * 2 * 50  # values, answers and statistics of a row weigh little beside a row
    assert of_50["forward+backward"] == pytest.approx(4, abs=400 / rows)
    assert of_50["loss and gradient"] == pytest.approx(4, abs=200 / rows)
    assert of_50["the same in place"] == pytest.approx(0, abs=200 / rows)
    assert of_50["plain"] > 12


@needs_native
def test_what_was_not_measured_is_blank_and_a_note_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = run_benchmark(tmp_path, "--classes", "50", "--similarities", "mmd")
    blank = {line["what"]: line for line in lines if line["note"]}
    assert set(blank) == {"torch.compile", bench_peers.LIGER, bench_peers.QUACK}
    out = capsys.readouterr().out
    for what, line in blank.items():
        assert [line[name] for name in NUMBERS] == [""] * len(NUMBERS)
        assert f"blank: {what}: {line['note']}" in out
    assert blank[bench_peers.QUACK]["note"] == "quack-kernels needs a CUDA device"
    assert {line["driver"] for line in lines} == {""}


@needs_native
def test_what_fails_of_others_is_blank_and_of_ours_an_error() -> None:
    def fails() -> None:
        raise RuntimeError("out of memory\nand more")

    def fails_later() -> None:
        calls.append(0)
        if len(calls) == 2:
            raise KeyError("not in the cache")

    calls: list[int] = []
    tried = bench.tried({"plain": fails, bench_clock.COMPILED: lambda: None})
    assert tried["plain"] == "RuntimeError: out of memory"
    assert callable(tried[bench_clock.COMPILED])
    found = bench._found("plain", fails, 0.5, "cpu")  # after it was timed
    assert found == ("plain", 0.5, None, "RuntimeError: out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        bench._found(bench.NATIVE, fails, 0.5, "cpu")
    with pytest.raises(RuntimeError, match="out of memory"):
        bench.tried({bench.NATIVE: fails})
    failed: dict[str, str] = {}
    steps = {bench.NATIVE: lambda: None, bench_peers.LIGER: fails_later}
    taken = bench_clock.times(steps, "cpu", 3, failed)
    assert list(taken) == [bench.NATIVE]
    assert len(taken[bench.NATIVE]) == 3
    assert failed == {bench_peers.LIGER: "KeyError: 'not in the cache'"}
    assert len(calls) == 2


class Operators(TorchDispatchMode):
    """Operators that are called, and the first argument of those in place, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.scores: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func.overloadpacket))
        if "and_grad_" in self.names[-1]:
            self.scores.append(args[0].clone())
        return func(*args, **(kwargs or {}))


@needs_native
def test_in_place_every_call_is_timed_on_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are put back before the clock is read. Of a GPU: test_loss_cuda_tensors.py."""
    tensors = torch.randn(2, 9), torch.randn(2, 9), torch.tensor([3, 8])
    case = bench.Case(PairLossSpec(), 2.0)
    clock = time.perf_counter
    with Operators() as operators:
        step = bench.in_one_go(tensors, case, inplace=True)
        operators.names.clear()

        def read() -> float:
            operators.names.append("clock")
            return clock()

        monkeypatch.setattr(time, "perf_counter", read)
        bench_clock.times({bench.IN_PLACE: step}, "cpu", 2)
        monkeypatch.undo()
    told = [name.split(".")[-1] for name in operators.names if not name.endswith("detach")]
    assert told == 3 * ["copy_", "copy_", "clock", "pair_loss_and_grad_", "clock"]
    assert all(torch.equal(scores, tensors[0]) for scores in operators.scores)


@needs_native
def test_a_peer_that_cannot_be_loaded_is_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bench_peers.Step:
        raise OSError("libcutlass.so: not found")

    monkeypatch.setattr(bench_peers, "_quack", broken)
    monkeypatch.setattr(bench_peers, "_absence", lambda *_: "")
    tensors = torch.randn(2, 3), torch.randn(2, 3), torch.zeros(2, dtype=torch.int64)
    monkeypatch.setattr(bench_peers, "_liger", lambda *_: lambda: None)
    steps = bench_peers.peer_steps(tensors, 2.0, PairLossSpec())
    assert steps[bench_peers.QUACK] == "OSError: libcutlass.so: not found"
    assert callable(steps[bench_peers.LIGER])


@needs_native
def test_plot_has_a_curve_for_each_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, list[float]]] = []
    plot = Axes.plot

    def watch(self: Axes, x: list[float], y: list[float], **style: str) -> object:
        drawn.append((style["label"], list(y)))
        return plot(self, x, y, **style)

    monkeypatch.setattr(Axes, "plot", watch)
    lines, path = run_benchmark(tmp_path, "--classes", "60,50", "--similarities", "kl")
    picture = Image.open(path.with_suffix(".png"))
    assert picture.format == "PNG"
    assert picture.width > 500
    last = dict(drawn[-8:-4])  # of the picture written last: times, then shares
    assert list(last) == [*OURS, "plain"]
    for what, values in last.items():
        in_csv = [float(line["ms"]) for line in lines if line["what"] == what]
        assert values == pytest.approx(in_csv[::-1], rel=1e-3)  # in the order of C


@pytest.mark.parametrize("direction", ["forward", "symmetric"])
def test_composed_kernels_compute_the_pair_loss(direction: Literal["forward", "symmetric"]) -> None:
    spec = PairLossSpec(direction=direction)
    first, second = torch.randn(2, 5, 40).unbind()
    labels = torch.tensor([3, 3, 0, 39, 7])

    def kl(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert not target.requires_grad
        return F.kl_div(x, target, reduction="batchmean", log_target=True)

    def cross_entropy(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(x, labels, ignore_index=-1)
        x.data.zero_()  # as Liger's, which leaves its gradient there
        return loss

    step = bench_peers.composed(cross_entropy, kl, (first, second, labels), 3.0, spec)
    for _ in range(2):
        bench_peers.prepare(step)
        total = step()
    rows = reference.row_terms(first.double(), second.double(), labels, 3.0, spec)
    truth = (rows.ce_first + rows.ce_second + rows.similarity).mean()
    assert isinstance(total, torch.Tensor)
    assert total.item() == pytest.approx(truth.item(), rel=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: .*(no GPU|not built for cuda).*run"):
        bench.main(["--preset", "h100"])


def test_presets_are_the_sizes_that_are_asked_for() -> None:
    h100 = bench.sizes(bench.parse(["--preset", "h100"]))
    *held, longest, wide = h100
    assert {size[:3] for size in held} == {("kl", "bfloat16", 1024)}
    assert [size.classes for size in held][:: len(held) - 1] == [16384, 1048576]
    assert [longest, wide] == [("kl", "bfloat16", 256, 2**21), ("kl", "float32", 256, 2**20)]
    numbers = [2 * size.pairs * size.classes for size in h100]
    assert max(numbers) == numbers[len(held) - 1], "plain torch nearly fills the device with them"
    assert bench.parse(["--preset", "h100"]).device == "cuda"
    cpu = bench.sizes(bench.parse(["--preset", "cpu"]))
    assert {size.pairs * size.classes for size in cpu} == {5_000_000}
    assert {size.similarity for size in cpu} == {"kl", "ce", "mmd"}


def test_exp_of_the_cpu_path_has_the_fitted_coefficients() -> None:
    coefficients, error = error_tables.fit_exp()
    source = (ROOT / "kernels" / "pair_loss_exp.h").read_text()
    start = source.index("float p = ")
    written = [float(x) for x in re.findall(r"([0-9.e-]+)f;", source[start : start + 300])]
    assert error < 3.2e-9
    assert written[4::-1] == pytest.approx(coefficients, rel=1e-5)
