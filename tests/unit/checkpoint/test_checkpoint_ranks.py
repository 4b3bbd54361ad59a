"""Checkpoints of two ranks that hold half of everything each: real processes over gloo."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tensors import TensorsEngine, lines_of_a_save

from distill.checkpoint import RunFacts, TrainState, latest_verified, load, save
from distill.checkpoint.find import verified
from distill.checkpoint.plan import plan_shards
from distill.checkpoint.save import _Attempt, _write_shard
from distill.checkpoint.shard import ShardLabel
from distill.checkpoint.stored import open_weights
from distill.checkpoint.weights import header_of
from distill.engine_parts.fragments import WEIGHT, Fragment
from distill.errors import UserError
from distill.ranks import Ranks

FACTS = RunFacts("run-a", {"model": {}, "head": {}}, ["ann", "bob"], "digest-1")
SHARDS = ("shard-00000-of-00002.safetensors", "shard-00001-of-00002.safetensors")
POINTS_A_RANK = 10


class HalvesEngine(TensorsEngine):
    """Rank 0 holds the first half of each tensor, rank 1 the rest; drawn from ``seed``."""

    def __init__(self, seed: int, rank: int) -> None:
        super().__init__(seed)
        self.ranks = Ranks(rank, 2, rank, 2, self.device)
        self.replicated = False

    def fragments(self, kind: str) -> list[Fragment]:
        return [self._half(n, t.view(-1)) for (k, n), t in self.state.items() if k == kind]

    def _half(self, name: str, values: torch.Tensor) -> Fragment:
        middle = values.numel() // 2
        start, end = (middle, None) if self.ranks.rank else (0, middle)
        return Fragment(name, start, values[start:end])

    def holds_what(self, other: TensorsEngine) -> bool:
        """Whether this rank's halves are those of ``other``."""
        return all(
            part.values.equal(
                other.state[kind, part.name].view(-1)[part.start :][: part.values.numel()]
            )
            for kind in (WEIGHT, *self.moments)
            for part in self.fragments(kind)
        )


def in_two_ranks(folder: Path, action: Callable[[int], None]) -> list[int]:
    """Run ``action(rank)`` in two processes that have met; their exit statuses, -9 for a kill."""
    folder.mkdir(exist_ok=True)
    meeting = folder / f"meeting-{len(list(folder.glob('meeting-*')))}"
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os._exit(_be_rank(meeting, rank, action))
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _be_rank(meeting: Path, rank: int, action: Callable[[int], None]) -> int:
    signal.alarm(300)
    try:
        store = dist.FileStore(str(meeting), 2)
        limit = timedelta(seconds=200)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
        action(rank)
    except BaseException:  # noqa: BLE001 - told by the status: this is a fork of the tests
        traceback.print_exc()
        return 1
    return 0


def save_step(folder: Path, step: int, rank: int) -> None:
    save(folder, HalvesEngine(step, rank), TrainState(step), FACTS)


class NobodysNames(list[str]):
    """Names that a rank has no business to go through: there may be millions."""

    def __iter__(self):
        raise AssertionError("all names were gone through")


def test_the_manifest_is_made_by_one_rank(tmp_path: Path) -> None:
    def action(rank: int) -> None:
        names = NobodysNames(FACTS.identities) if rank else FACTS.identities
        facts = replace(FACTS, identities=names)
        save(tmp_path / "run", HalvesEngine(3, rank), TrainState(3), facts)

    assert in_two_ranks(tmp_path, action) == [0, 0]
    assert latest_verified(tmp_path / "run").manifest.identities == FACTS.identities


@pytest.mark.parametrize("world_size", [2, 50])
def test_what_a_rank_holds_is_looked_up_as_often_for_any_number_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    """Of a thousand ranks each took seconds of a save to look it up for each shard anew."""
    engine, asked = HalvesEngine(3, 0), []
    engine.ranks = Ranks(0, world_size, 0, world_size, engine.device)
    real = engine.fragments
    monkeypatch.setattr(engine, "fragments", lambda kind: (asked.append(kind), real(kind))[1])
    monkeypatch.setattr("torch.distributed.reduce", lambda *_: None)
    label = ShardLabel("run-a", 3, 0, world_size)
    _write_shard(tmp_path / "shard", engine, plan_shards(engine), label, _Attempt())
    assert sorted(asked) == sorted(2 * (WEIGHT, *engine.moments))  # here, and for what is by rows


@pytest.fixture
def two_steps(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        assert in_two_ranks(tmp_path, lambda rank, s=step: save_step(folder, s, rank)) == [0, 0]
    return folder


def found_by_both(tmp_path: Path, folder: Path) -> tuple[int, str]:
    """The step that both ranks resume from, and what was set aside before."""

    def look(rank: int) -> None:
        engine = HalvesEngine(50, rank)
        found = latest_verified(folder, engine.ranks)
        assert found is not None
        assert load(found, engine, FACTS).step == found.step
        assert engine.holds_what(TensorsEngine(found.step))
        (tmp_path / f"seen{rank}").write_text(json.dumps([found.step, found.set_aside]))

    assert in_two_ranks(tmp_path, look) == [0, 0]
    first, second = (json.loads((tmp_path / f"seen{rank}").read_text()) for rank in range(2))
    assert first == second
    return first[0], " ".join(reason for _, reason in first[1])


def test_a_file_of_weights_that_one_rank_cannot_read_ends_both(tmp_path: Path) -> None:
    """As where each node has its own copy: the good rank must not wait for the other one."""
    metadata = header_of({}, ["ann", "bob"], 3, "run-a")
    for rank in range(2):
        save_file({"weight": torch.ones(2)}, tmp_path / f"{rank}.safetensors", metadata)
    os.truncate(tmp_path / "1.safetensors", 20)

    def look(rank: int) -> None:
        ranks = HalvesEngine(50, rank).ranks
        with (
            ExitStack() as stack,
            pytest.raises(UserError, match=r"1\.safetensors' cannot"),
        ):
            open_weights(tmp_path / f"{rank}.safetensors", stack, ranks)

    assert in_two_ranks(tmp_path, look) == [0, 0]


def test_one_rank_may_look_at_a_checkpoint_alone(two_steps: Path, tmp_path: Path) -> None:
    def look(rank: int) -> None:
        if rank == 0:
            assert verified(two_steps / "step-00000002").step == 2

    assert in_two_ranks(tmp_path, look) == [0, 0]


def flip(folder: Path, rank: int) -> None:
    data = bytearray((folder / SHARDS[rank]).read_bytes())
    data[-100] ^= 1
    (folder / SHARDS[rank]).write_bytes(data)


def cut(folder: Path, rank: int) -> None:
    path = folder / SHARDS[rank]
    path.write_bytes(path.read_bytes()[:-1])


def swap(folder: Path, rank: int) -> None:
    """The shard of the other rank, of the very same step."""
    (folder / SHARDS[rank]).write_bytes((folder / SHARDS[1 - rank]).read_bytes())


def put_older(folder: Path, rank: int) -> None:
    older = folder.with_name("step-00000001") / SHARDS[rank]
    (folder / SHARDS[rank]).write_bytes(older.read_bytes())


def remove(folder: Path, rank: int) -> None:
    (folder / SHARDS[rank]).unlink()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("damage", [flip, cut, swap, put_older, remove])
def test_damage_to_any_shard_is_agreed_on(
    two_steps: Path, tmp_path: Path, damage: Callable[[Path, int], None], rank: int
) -> None:
    """Each rank reads one shard only; both use the checkpoint before, and name the same file.

    A process alone reads all of them.
    """
    assert found_by_both(tmp_path, two_steps) == (2, "")
    damage(two_steps / "step-00000002", rank)
    alone = latest_verified(shutil.copytree(two_steps, tmp_path / "copy"))
    assert alone is not None and alone.step == 1 and SHARDS[rank] in alone.set_aside[0][1]
    step, reason = found_by_both(tmp_path, two_steps)
    assert step == 1
    assert SHARDS[rank] in reason


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_anywhere_in_a_save(tmp_path: Path, victim: int) -> None:
    """The other one leaves, and both resume from the one before, or from the new one."""
    folder, lines = tmp_path / "checkpoints", tmp_path / "lines"
    assert in_two_ranks(tmp_path, lambda rank: save_step(folder, 1, rank)) == [0, 0]

    def hurt_save(rank: int, stop_at: int | None) -> None:
        at = stop_at if rank == victim else None
        total = lines_of_a_save(lambda: save_step(folder, 2, rank), stop_at=at)
        if rank == victim:
            lines.write_text(str(total))

    assert in_two_ranks(tmp_path, lambda rank: hurt_save(rank, None)) == [0, 0]
    total, seen = int(lines.read_text()), set()
    for point in sorted(random.Random(victim).sample(range(1, total), POINTS_A_RANK)):
        (folder / "step-00000002").rename(tmp_path / f"{point}")
        statuses = in_two_ranks(tmp_path, lambda rank, p=point: hurt_save(rank, p))
        assert statuses[victim] == -signal.SIGKILL, point
        step, reason = found_by_both(tmp_path, folder)
        assert (step in (1, 2), reason) == (True, ""), point
        seen.add(step)
        # The same step once more: what was left half-written is in nobody's way, and goes.
        assert in_two_ranks(tmp_path, lambda rank: save_step(folder, 2, rank)) == [0, 0]
        assert found_by_both(tmp_path, folder) == (2, "")
        assert not list(folder.glob(".*"))
    assert 1 in seen
