"""`classify` and `embed` of many photographs: several processes, rows as they come, early ends."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import resource
import signal
import threading
import tracemalloc
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import rank_processes
import torch
from PIL import Image
from safetensors.torch import save_file

from distill.classify import answers_of
from distill.classify.embed import Embedded, embeddings_of
from distill.classify.faces import processes_for
from distill.classify.npz import write_npz
from distill.classify.photographs import find_photographs, photographs_at
from distill.config.tree import Config, ModelConfig
from distill.data.batch import as_network_input
from distill.errors import UserError
from distill.models import build_classifier
from distill.processes.cores import usable_cores
from distill.trained import Trained

DIM, LOT, PEOPLE = 32, 32, ["Ann", "Bob", "Cem"]


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.manual_seed(0)
    config = Config(model=ModelConfig(name="tiny", embedding_dim=DIM))
    return Trained(build_classifier(config, 3).eval(), config, 0, Path("here"), "", PEOPLE)


@pytest.fixture(scope="module")
def weights(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    about = {"format": "pairdistill-weights-1", "step": "12", "run_id": "r"}
    config = trained.config.model_dump()
    about |= {"config": json.dumps(config), "identities": json.dumps(PEOPLE)}
    save_file(trained.model.state_dict(), path, about)
    return path


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (112, 112, 3), np.uint8)


def photographs(folder: Path, count: int, *, drawn: int = 3) -> list[Path]:
    """Aligned faces; after the first few they are links to these."""
    files = [folder / f"{i:04}.png" for i in range(count)]
    for i, file in enumerate(files):
        if i < drawn:
            Image.fromarray(pixels(i)).save(file)
        else:
            os.link(files[i % drawn], file)
    return files


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Of 75 every tenth is none."""
    found = photographs(tmp_path, 75, drawn=74)
    for file in found[::10]:
        file.unlink()
    return found


def expected(trained: Trained, files: list[Path]) -> Iterator[torch.Tensor]:
    """Embeddings of each 32 photographs by hand, not of unit length."""
    for start in range(0, len(files), LOT):
        there = [file for file in files[start : start + LOT] if file.exists()]
        images = np.stack([np.asarray(Image.open(file)) for file in there]).transpose(0, 3, 1, 2)
        with torch.inference_mode():
            yield trained.model.backbone(as_network_input(torch.from_numpy(images.copy())))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_processes_gives_the_same_bits(
    trained: Trained, files: list[Path], workers: int
) -> None:
    here, started = [], 0
    for lot in embeddings_of(trained, files, aligned=True, workers=workers):
        started = max(started, len(active_children()))
        here.append(lot)
    assert started == (0 if workers == 1 else 2)
    assert active_children() == []
    for lot, raw in zip(here, expected(trained, files), strict=True):
        assert torch.equal(torch.from_numpy(lot.lengths), raw.norm(dim=1))
        assert torch.equal(torch.from_numpy(lot.embeddings), raw / raw.norm(dim=1, keepdim=True))
    assert [path for lot in here for path in lot.photographs] == [f for f in files if f.exists()]
    assert [path for lot in here for path, _ in lot.unusable] == files[::10]


def test_two_processes_give_the_same_answers(trained: Trained, files: list[Path]) -> None:
    answers = list(answers_of(trained, files, aligned=True, workers=2))
    assert answers == list(answers_of(trained, files, aligned=True))
    assert [answer.photograph for answer in answers] == files


def test_processes_are_started_where_they_are_worth_it() -> None:
    cpu, gpu, many = torch.device("cpu"), torch.device("cuda"), 1_000_000
    assert processes_for(0, 1, cpu, aligned=False) == processes_for(2, 1, cpu, aligned=False) == 1
    assert (
        processes_for(0, 10, gpu, aligned=False) == processes_for(0, 1000, gpu, aligned=True) == 1
    )
    assert processes_for(0, many, cpu, aligned=False) == usable_cores()
    assert processes_for(0, many, gpu, aligned=True) == usable_cores()
    assert processes_for(0, many, cpu, aligned=True) == 1
    assert processes_for(3, 10, cpu, aligned=True) == 3


def ended_after_one(lots: Iterator[Embedded]) -> Iterator[Embedded]:
    """The same; a worker is killed when the first has come."""
    yield next(lots)
    active_children()[0].kill()
    yield from lots


def test_a_killed_worker_is_told_and_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    (folder := tmp_path / "faces").mkdir()
    files = photographs(folder, 1000)
    lots = ended_after_one(embeddings_of(trained, files, aligned=True, workers=2))
    said = r"was killed by SIGKILL near .*\.png: out of memory\?; try again with fewer --workers"
    with pytest.raises(UserError, match=said):
        write_npz(lots, tmp_path / "e.npz", embedding_dim=DIM)
    assert [*tmp_path.iterdir()] == [folder]
    assert active_children() == []


def test_a_worker_that_cannot_be_started_is_no_fault_of_the_file(
    trained: Trained, tmp_path: Path
) -> None:
    """The kernel refuses pipes to it, but not the files that were opened before."""
    files = [tmp_path / f"{i}.png" for i in range(3)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lots() -> Iterator[Embedded]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        yield from embeddings_of(trained, files, aligned=True, workers=2)

    try:
        with pytest.raises(UserError, match=r"^a worker process cannot be started \(Too many open"):
            write_npz(lots(), tmp_path / "e.npz", embedding_dim=DIM)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_photograph_that_waits_takes_little_more_than_its_name(tmp_path: Path) -> None:
    files = [tmp_path / f"{i:04}.jpg" for i in range(2000)]
    for file in files:
        file.touch()
    photographs_at([tmp_path])  # what is loaded once
    tracemalloc.start()
    found = photographs_at([tmp_path])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(files) < 100 + len(str(files[0]))
    assert [*found] == files == find_photographs([tmp_path]) and len(found) == len(files)


INTO_A_PIPE = """
import os, sys
pipe, *words = sys.argv[1:]
os.dup2(os.open(pipe, os.O_WRONLY), 1)
from distill.__main__ import main
sys.argv = ["pairdistill", *words]
main()
"""


@pytest.mark.parametrize("form", ["csv", "json"])
def test_rows_come_before_later_photographs_are_read(
    weights: Path, tmp_path: Path, form: str
) -> None:
    """Nobody reads them but one; what follows is taken away before it is looked at."""
    (folder := tmp_path / "faces").mkdir()
    files, pipe = photographs(folder, 5 * LOT), tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ["classify", weights, folder, "--aligned", "--format", form]
    done: list[CompletedProcess[str]] = []
    arguments = ["-c", INTO_A_PIPE, *map(str, (pipe, *words))]
    running = threading.Thread(target=lambda: done.append(rank_processes.python(*arguments)))
    running.start()
    with pipe.open("rb", buffering=0) as rows:
        fcntl.fcntl(rows, fcntl.F_SETPIPE_SZ, 4096)  # the program soon waits for its reader
        told = b""
        while str(files[0]).encode() not in told:
            told += (some := rows.read(200))
            assert some, "it ended before the first row"
        for file in files[3 * LOT :]:
            file.unlink()
        told += rows.readall()
    running.join()
    assert done[0].returncode == 0, done[0].stderr
    read = json.loads if form == "json" else lambda text: list(csv.DictReader(io.StringIO(text)))
    found = read(told.decode())
    assert [row["photograph"] for row in found] == [str(file) for file in files]
    stati = [row["status"] for row in found]
    assert stati == ["ok"] * 3 * LOT + ["unreadable: no such file"] * 2 * LOT


STOPPED = """
import os, signal, sys
from pathlib import Path
from distill.__main__ import main
from distill.console import Bar

folder, number, *words = sys.argv[1:]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
advance, seen = Bar.advance, []

def advance_and_stop(bar):
    advance(bar)
    seen.append(bar)
    if len(seen) == 100:
        assert [*Path(folder).glob(".*.partial")]
        os.kill(os.getpid(), int(number))

Bar.advance = advance_and_stop
sys.argv = ["pairdistill", *words]
main()
"""


@pytest.mark.parametrize(
    ("command", "number"),
    [("embed", signal.SIGTERM), ("embed", signal.SIGINT), ("classify", signal.SIGHUP)],
)
def test_a_stop_leaves_what_was_there(
    weights: Path, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    (folder := tmp_path / "faces").mkdir()
    photographs(folder, 200)
    (to := tmp_path / "to").mkdir()
    out = to / "out.csv"
    out.write_text("of another day")
    words = ["-c", STOPPED, to, number.value, command, weights, folder, "--aligned", "--out", out]
    done = rank_processes.python(*map(str, words))
    assert done.returncode == 128 + number, done.stderr
    assert [*to.iterdir()] == [out] and out.read_text() == "of another day"
