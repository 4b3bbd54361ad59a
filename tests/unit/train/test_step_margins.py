"""Margins that the network gives with its scores reach the cross-entropies of a step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distill.config import load_config
from distill.data.batch import PairBatch
from distill.heads import NormMargins
from distill.losses import PairLossSpec, RowMargins, pair_loss
from distill.models.classifier import ClassifierOutput
from distill.step import Recipe, batch_loss

B, C = 3, 5
SCORES = torch.rand(2 * B, C, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
LABELS = torch.tensor([0, 4, 2])
ANGLE, COSINE = torch.linspace(-0.4, 0.4, 2 * B), torch.linspace(0.8, 0.0, 2 * B)


@pytest.mark.parametrize("images", ["pair", "first"])
def test_margins_of_each_image(images: str) -> None:
    rows = 2 * B if images == "pair" else B
    margins = NormMargins(ANGLE[:rows], COSINE[:rows])
    output = ClassifierOutput(torch.rand(rows, 4), SCORES[:rows], 64.0, margins)
    engine = SimpleNamespace(forward=lambda _: output, device=torch.device("cpu"))
    pixels = torch.zeros(B, 3, 8, 8, dtype=torch.uint8)
    batch = PairBatch(pixels, pixels, LABELS, torch.zeros(B, dtype=torch.int64), torch.arange(B))
    config = load_config(None, ["head.margin=adaface", f"train.images={images}"])
    loss = batch_loss(engine, batch, Recipe(config, 10), 0)
    true = pair_loss(
        *SCORES.double().chunk(2),
        LABELS,
        temperature=1.0,
        weight=0.0,
        spec=PairLossSpec(logit_scale=64.0),
        margins=RowMargins(ANGLE, COSINE),
        implementation="reference",
    )
    assert float(loss.scalars["loss/ce_first"]) == pytest.approx(float(true.ce_first), rel=1e-5)
    if images == "pair":
        second = float(loss.scalars["loss/ce_second"])
        assert second == pytest.approx(float(true.ce_second), rel=1e-5)
