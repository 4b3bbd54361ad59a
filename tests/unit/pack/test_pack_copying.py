"""Batches on the way to their device keep their order and their places."""

import pytest
import torch

from distill.data.batch import OrderState, PairBatch
from distill.data.copying import on_device


@pytest.mark.parametrize("pairs", [True, False])
def test_on_the_cpu_they_pass_through(pairs):
    def batches():
        for i in range(5):
            images, ids = torch.full((2, 3, 8, 8), i, dtype=torch.uint8), torch.tensor([i, i + 1])
            second = images if pairs else None
            yield PairBatch(images, second, ids, ids, ids), OrderState(0, 2 * (i + 1))

    found = list(on_device(batches(), torch.device("cpu")))
    assert [int(batch.first[0, 0, 0, 0]) for batch, _ in found] == list(range(5))
    assert all((batch.second is not None) == pairs for batch, _ in found)
    assert [place.consumed for _, place in found] == [2, 4, 6, 8, 10]
