"""A device whose memory does not suffice: what would help is said, whatever it ran out in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

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
