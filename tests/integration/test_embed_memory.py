"""What `embed` holds in memory and leaves on a disk; here embeddings are larger than all else."""

from __future__ import annotations

import io
import os
import resource
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.classify.embed import Embedded, embed_photographs, embeddings_of
from distill.classify.npz import write_npz
from distill.config.tree import Config, ModelConfig
from distill.errors import UserError
from distill.models import build_classifier
from distill.trained import TrainedBackbone

DIM, PHOTOGRAPHS = 65536, 400
BYTES = 4 * DIM * PHOTOGRAPHS


def memory(figure: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` the most since it was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(figure))
    return int(line.split()[1]) << 10


def most_used(work: object) -> int:
    """Bytes that ``work`` has in memory at most, beyond what is there before."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most
    before = memory("VmRSS")
    work()  # type: ignore[operator]
    return memory("VmHWM") - before


def test_embeddings_are_in_memory_once_and_in_a_file_not_at_all(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Config(model=ModelConfig(name="tiny", embedding_dim=DIM))
    trained = TrainedBackbone(build_classifier(config, 2).eval(), config, 0, tmp_path, "")
    faces = [tmp_path / "none.png", *(tmp_path / f"{i}.png" for i in range(4))]
    for face in faces[1:]:
        pixels = np.random.default_rng(len(face.name)).integers(0, 256, (112, 112, 3), np.uint8)
        Image.fromarray(pixels).save(face)
    embed_photographs(trained, faces * 7, aligned=True)  # what a first lot takes is here for good
    made: list[Embedded] = []
    asked, out = faces * (PHOTOGRAPHS // len(faces)), tmp_path / "e.npz"
    used = most_used(
        lambda: write_npz(embeddings_of(trained, asked, aligned=True), out, embedding_dim=DIM)
    )
    assert used < 0.5 * BYTES, f"{used / BYTES:.2f} times the embeddings"
    used = most_used(lambda: made.append(embed_photographs(trained, asked, aligned=True)))
    assert used < 1.25 * BYTES, f"{used / BYTES:.2f} times the embeddings"
    (found,) = made
    with np.load(out) as stored:
        assert np.array_equal(stored["embeddings"], found.embeddings)
    assert (found.embeddings.shape, len(found.unusable)) == ((320, DIM), 80)
    rows = torch.from_numpy(found.embeddings)
    assert torch.allclose(rows.norm(dim=1), torch.ones(320), atol=1e-5)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.array(Image.open(faces[1]))).permute(2, 0, 1)[None]
        raw = trained.model.backbone(pixels.float() / 127.5 - 1)
    assert torch.allclose(rows[:1], torch.nn.functional.normalize(raw), atol=1e-6)
    assert found.lengths[0] == pytest.approx(float(raw.norm()), rel=1e-5)


def in_lots(found: Embedded) -> Iterator[Embedded]:
    """The same in pieces of several sizes, one of them empty."""
    cuts = [0, 0, 1, 100, len(found.photographs)]
    for start, stop in pairwise(cuts):
        part = slice(start, stop)
        bad = found.unusable if stop == 1 else []
        yield Embedded(found.photographs[part], found.embeddings[part], found.lengths[part], bad)


def saved(found: Embedded) -> bytes:
    """What `numpy.savez` makes of it in memory."""
    file = io.BytesIO()
    np.savez(
        file,
        photographs=np.array([str(path) for path in found.photographs], np.str_),
        embeddings=found.embeddings,
        lengths=found.lengths,
        unusable=np.array([str(path) for path, _ in found.unusable], np.str_),
        reasons=np.array([reason for _, reason in found.unusable], np.str_),
    )
    return file.getvalue()


def drawn(paths: list[Path]) -> Embedded:
    rows = np.random.default_rng(0).normal(size=(len(paths), 64)).astype(np.float32)
    lengths = np.arange(len(paths), dtype=np.float32)
    return Embedded(paths, rows, lengths, [(Path("b"), "no face"), (Path("c"), "2 faces")])


def test_the_file_is_numpys_own_or_not_there(tmp_path: Path) -> None:
    """As `np.savez` makes it in memory; a disk that is full meanwhile holds nothing of it."""
    odd = os.fsdecode(b"\xff \n\r\xe2\x80\xa8.jpg")
    found, out = drawn([*(Path(f"/photos/{i}.jpg") for i in range(299)), Path(odd)]), tmp_path / "e"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (50_000, 90_000):  # met by the rows, by the file that is made of them
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(UserError, match=r"/e: disk full \(File too large\)"):
                write_npz(in_lots(found), out, embedding_dim=64)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.iterdir())
    written = write_npz(in_lots(found), out, embedding_dim=64)
    assert written == (300, 2, found.unusable)
    assert out.read_bytes() == saved(found)
    assert write_npz([], out, embedding_dim=64) == (0, 0, [])
    assert out.read_bytes() == saved(Embedded([], found.embeddings[:0], found.lengths[:0], []))


def test_one_long_path_takes_no_room_of_all(tmp_path: Path) -> None:
    """numpy gives each path as many letters as the longest has, 4 bytes each: 80 MB here."""
    long = Path("/".join(["x" * 200] * 20))
    found, out = drawn([*(Path(f"{i}.jpg") for i in range(5000)), long]), tmp_path / "e.npz"
    used = most_used(lambda: write_npz(in_lots(found), out, embedding_dim=64))
    assert used < 20e6 and out.stat().st_size < found.embeddings.nbytes + 2e6
    with np.load(out) as stored:
        assert stored["photographs"].dtype == "<U4019"
        assert list(map(Path, stored["photographs"])) == found.photographs
