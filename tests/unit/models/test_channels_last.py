"""Images reach the convolutions with their channels side by side, and stay so to the last one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distill.data.batch import IMAGE_SIZE, as_network_input
from distill.models.registry import build_backbone


def test_pixels_become_numbers_around_0_and_stay_what_they_were() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 7, 9), dtype=np.uint8)
    images = torch.from_numpy(pixels.copy())
    found = as_network_input(images)
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found, pixels.astype(np.float64) / 127.5 - 1.0, atol=2e-7, rtol=0)
    assert (images.numpy() == pixels).all()
    assert as_network_input(images, torch.float64).dtype == torch.float64


@pytest.mark.parametrize("name", ["tiny", "mobile", "iresnet18", "insight_mbf"])
def test_no_layer_turns_them_back(name: str) -> None:
    network = build_backbone(name, embedding_dim=32, dropout=0.0).train()
    turned_back = []

    def look(module: nn.Module, _: object, out: torch.Tensor) -> None:
        wide = out.ndim == 4 and min(out.shape[1:]) > 1  # else both orders are the same
        if wide and not out.is_contiguous(memory_format=torch.channels_last):
            turned_back.append(module)

    for module in network.modules():
        module.register_forward_hook(look)
    images = torch.randint(0, 256, (2, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    network(as_network_input(images))
    assert turned_back == []
