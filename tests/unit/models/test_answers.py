"""What heads answer, against counting in numpy: in blocks of rows, by ranges of classes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.config.tree import HeadConfig
from distill.heads import ClassRanges, answers, build_head, build_sharded_head, sharded
from distill.heads.answers import Answers, answers_to
from distill.models.classifier import Embedder, PairClassifier, ShardedClassifier

DIM = 3


def counted(logits: np.ndarray, classes: np.ndarray) -> list[tuple[int, float, int, float]]:
    """Each row's answer from softmax's definition; -1 is nobody that is known."""
    found = []
    for row, right in zip(logits, classes, strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        others = np.delete(row, right) if right >= 0 else row
        place = int((others >= row[right]).sum()) if right >= 0 else len(row)
        found.append((int(row.argmax()), p.max(), place, p[right] if right >= 0 else 0.0))
    return found


def agree(found: Answers, logits: torch.Tensor, classes: torch.Tensor) -> None:
    expected = counted(logits.double().numpy(), classes.numpy())
    for ours, true in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(ours.numpy(), np.array(true), rtol=1e-5, atol=1e-7)
    assert [one.dtype for one in found] == [torch.int64, torch.float32] * 2


def test_of_equal_logits_the_first_is_answered_and_the_others_come_before_the_right_one() -> None:
    made = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (300, 5), generator=made).float()
    classes = torch.randint(-1, 5, (300,), generator=made)
    agree(answers_to(logits, classes), logits, classes)


class Together:
    """Collectives of ranks that are threads of this process."""

    def __init__(self, ranks: int) -> None:
        self.place, self.door = threading.local(), threading.Barrier(ranks, timeout=300)
        self.told: list[Any] = [None] * ranks

    def objects(self, mine: Any) -> list[Any]:
        self.told[self.place.rank] = mine
        self.door.wait()
        everyone = list(self.told)
        self.door.wait()
        return everyone

    def gathered(self, mine: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.objects(mine))

    def largest(self, mine: torch.Tensor) -> torch.Tensor:
        return self.gathered(mine).amax(0)

    def play(self, calls: list[Callable[[], Any]]) -> list[Any]:
        def one(rank: int) -> Any:
            self.place.rank = rank
            try:
                return calls[rank]()
            except BaseException:
                self.door.abort()  # the others wait for it in vain
                raise

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(one, range(len(calls))))


HEADS = {"linear": {"kind": "linear"}, "cosine": {}, "sub-centres": {"sub_centres": 2}}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.sampled_from(list(HEADS)),
    st.lists(st.integers(0, 7), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_ranks_answer_as_one_and_as_is_counted(kind, images, block, seed) -> None:
    """Ranks with images of their own, also none; more rows than a block."""
    classes, config = 8, HeadConfig(**HEADS[kind])
    torch.manual_seed(seed)
    whole = build_head(config, DIM, classes)
    rows = [torch.randn(n, DIM) if n else torch.empty(0) for n in images]
    right = [torch.randint(-1, classes, (n,)) for n in images]
    shards = []
    for rank in range(len(images)):
        torch.manual_seed(seed)
        ranges = ClassRanges.even(classes, rank, len(images))
        head = build_sharded_head(config, DIM, ranges)
        shards.append(ShardedClassifier(Embedder(nn.Identity()), head))
    ranks = Together(len(images))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(answers, "ROWS_AT_ONCE", block)
        patch.setattr(sharded, "ROWS_AT_ONCE", block)
        patch.setattr(sharded, "gathered", ranks.gathered)
        patch.setattr(sharded, "gather_objects", ranks.objects)
        patch.setattr(sharded, "all_reduce_max", ranks.largest)
        asked = zip(shards, rows, right, strict=True)
        found = ranks.play([lambda h=h, x=x, y=y: no_grad(h.answers, x, y) for h, x, y in asked])
        alone = PairClassifier(nn.Identity(), whole)
        for ours, x, y in zip(found, rows, right, strict=True):
            for one in (ours, alone.answers(x, y)):
                assert len(one.places) == len(x)
                if len(x):
                    agree(one, whole.scale * whole(x), y)


def no_grad(call: Callable[..., Any], *args: Any) -> Any:
    """Gradients are a matter of each thread."""
    with torch.no_grad():
        return call(*args)
