"""What `embed` holds in memory and leaves on a disk; here embeddings are larger than all else."""

from __future__ import annotations

import io
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.classify.embed import Embedded, embed_photographs, write_npz
from distill.config.tree import Config, ModelConfig
from distill.errors import UserError
from distill.models import build_classifier
from distill.trained import TrainedBackbone

DIM, PHOTOGRAPHS = 65536, 512
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


def test_embeddings_are_in_memory_once_and_written_from_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Config(model=ModelConfig(name="tiny", embedding_dim=DIM))
    trained = TrainedBackbone(build_classifier(config, 2).eval(), config, 0, tmp_path, "")
    faces = [tmp_path / "none.png", *(tmp_path / f"{i}.png" for i in range(4))]
    for face in faces[1:]:
        pixels = np.random.default_rng(len(face.name)).integers(0, 256, (112, 112, 3), np.uint8)
        Image.fromarray(pixels).save(face)
    embed_photographs(trained, faces, aligned=True)  # what a first call takes is here for good
    made: list[Embedded] = []
    asked = faces * (PHOTOGRAPHS // len(faces))
    used = most_used(lambda: made.append(embed_photographs(trained, asked, aligned=True)))
    assert used < 1.25 * BYTES, f"{used / BYTES:.2f} times the embeddings"
    (found,) = made
    used = most_used(lambda: write_npz(found, tmp_path / "e.npz"))
    assert used < 0.5 * BYTES, f"{used / BYTES:.2f} times the embeddings"
    assert (found.embeddings.shape, len(found.unusable)) == ((408, DIM), 102)
    rows = torch.from_numpy(found.embeddings)
    assert torch.allclose(rows.norm(dim=1), torch.ones(408), atol=1e-5)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.array(Image.open(faces[1]))).permute(2, 0, 1)[None]
        raw = trained.model.backbone(pixels.float() / 127.5 - 1)
    assert torch.allclose(rows[:1], torch.nn.functional.normalize(raw), atol=1e-6)
    assert found.lengths[0] == pytest.approx(float(raw.norm()), rel=1e-5)


def test_the_file_is_numpys_own_or_not_there(tmp_path: Path) -> None:
    """As `np.savez` makes it in memory; a disk that is full meanwhile holds nothing of it."""
    rows = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    lengths = np.arange(300, dtype=np.float32)
    paths = [Path(f"/photos/{i}.jpg") for i in range(300)]
    found = Embedded(paths, rows, lengths, [(Path("b"), "no face")])
    out, wanted = tmp_path / "e", io.BytesIO()
    np.savez(
        wanted,
        photographs=np.array([str(path) for path in paths]),
        embeddings=rows,
        lengths=lengths,
        unusable=np.array(["b"]),
        reasons=np.array(["no face"]),
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"/e: disk full \(File too large\)"):
            write_npz(found, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
    write_npz(found, out)
    assert out.read_bytes() == wanted.getvalue()
