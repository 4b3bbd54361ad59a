"""Margins that the network finds reach the cross-entropies of a step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distill.config import load_config
from distill.data.batch import PairBatch
from distill.heads import AdaFace, NormMargins
from distill.losses import PairLossSpec, RowMargins, pair_loss
from distill.models.classifier import ClassifierOutput
from distill.objective import objective_of

B, C = 3, 5
SCORES = torch.rand(2 * B, C, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
LABELS = torch.tensor([0, 4, 2])
ANGLE, COSINE = torch.linspace(-0.4, 0.4, 2 * B), torch.linspace(0.8, 0.0, 2 * B)


class Given(AdaFace):
    """Margins that do not come from lengths."""

    def forward(self, embeddings: torch.Tensor) -> NormMargins:
        return NormMargins(ANGLE[: len(embeddings)], COSINE[: len(embeddings)])


@pytest.mark.parametrize("images", ["pair", "first"])
def test_margins_of_each_image(images: str) -> None:
    rows = 2 * B if images == "pair" else B
    output = ClassifierOutput(torch.rand(rows, 4), SCORES[:rows], 64.0)
    network = SimpleNamespace(adaface=Given(0.4, 0.333, 0.01))
    engine = SimpleNamespace(forward=lambda _: output, module=network)
    pixels = torch.zeros(B, 3, 8, 8, dtype=torch.uint8)
    batch = PairBatch(pixels, pixels, LABELS, torch.zeros(B, dtype=torch.int64), torch.arange(B))
    config = load_config(None, ["head.margin=adaface", f"train.images={images}"])
    loss = objective_of(config).loss(engine, batch, 0, 0, 0)
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
