"""A device whose memory does not suffice: what would help is said, whatever it ran out in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_processes import python

from distill import train
from distill.config import as_override, load_config
from distill.errors import UserError
from distill.job import memory_hints
from distill.ranks import Ranks

CPU = torch.device("cpu")


def full(*_: object, **__: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.81 GiB")


@pytest.mark.parametrize("where", ["Engine.create", "begin_or_resume"])
def test_too_much_to_hold_before_the_first_step(
    packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """There is no batch yet that could be smaller."""
    words = (as_override("data.train", str(packs / "train")), as_override("run.dir", str(tmp_path)))
    small = "model.name=tiny", "train.global_batch_pairs=6", "run.device=cpu"
    monkeypatch.setattr(train.Engine, "create", lambda *_: None)
    monkeypatch.setattr(f"distill.train.{where}", full)
    with pytest.raises(
        UserError, match=r"^out of memory on cpu .*Tried to allocate 3\.81"
    ) as found:
        train.train(load_config(None, [*words, *small]), Ranks(0, 1, 0, 1, CPU))
    for word in ('head.placement = "sharded"', "train.zero_stage", "more ranks", "are intact"):
        assert word in found.value.fix
    assert "batch" not in found.value.fix


def test_too_much_for_a_step() -> None:
    with pytest.raises(UserError) as found, memory_hints(CPU):
        full()
    assert found.value.fix.startswith("lower train.global_batch_pairs, or raise train.acc")


@pytest.mark.parametrize("asked", [torch.empty, np.empty, bytearray])
def test_a_machine_that_has_too_little(asked: Callable[[int], object]) -> None:
    """As much as no machine has; torch, numpy and Python each say it in their way."""
    with pytest.raises(UserError) as found, memory_hints(CPU, "reading"):
        asked(1 << 50)
    assert found.value.what.startswith("out of memory of this machine while reading (")
    assert not found.value.what.endswith(": ") and "zero_stage" in found.value.fix
    said = r"while training .* lower train\.global_batch_pairs"
    with pytest.raises(UserError, match=said), memory_hints(CPU):
        asked(1 << 50)
    for other in (RuntimeError("another"), UserError("Cannot allocate memory")):
        with pytest.raises(type(other)) as found, memory_hints(CPU):
            raise other
        assert found.value is other


LIMITED = """
import resource, sys
from pathlib import Path
from distill.cli.app import main
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 30),) * 2)
sys.exit(main())
"""


def test_a_process_that_may_hold_too_little_for_the_network(packs: Path, tmp_path: Path) -> None:
    """Its last layer has 6.1 GiB; the limit, as of `ulimit -v`, is 1 GiB more than at its start."""
    (tmp_path / "run.toml").write_text("")
    words = (
        as_override("data.train", str(packs / "train")),
        as_override("run.dir", str(tmp_path / "run")),
    )
    network = "model.name=iresnet18", "model.embedding_dim=65536", "train.global_batch_pairs=6"
    done = python(
        "-c", LIMITED, "train", str(tmp_path / "run.toml"), *words, *network, "run.device=cpu"
    )
    assert done.returncode == 2, done.stderr
    said = " ".join(done.stderr.split())
    assert (
        "error: out of memory of this machine while building the network and the head of 3" in said
    )
    assert "can't allocate memory: you tried to allocate 6576668672 bytes" in said
    assert 'head.placement = "sharded"' in said and "Traceback" not in said
