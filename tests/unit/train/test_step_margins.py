"""What the forms of a loss make of a network: its margins, and the same answers of both."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distill.config import load_config
from distill.data.batch import PairBatch
from distill.heads import AdaFace, NormMargins, build_adaface, build_head
from distill.losses import PairLossSpec, RowMargins, pair_loss
from distill.models.classifier import ClassifierOutput, PairClassifier
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


class Flat(nn.Module):
    """Pixels as embeddings, with a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.flatten(1)


@pytest.mark.parametrize("images", ["pair", "first"])
@pytest.mark.parametrize("head", [("kind=linear",), ("margin=adaface",), ("sub_centres=3",)])
def test_both_forms_tell_the_same_and_answer_where_they_are_asked(head, images: str) -> None:
    made = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 4, 3, 2, 2), dtype=torch.uint8, generator=made)
    labels = torch.tensor([0, 4, -1, 2])
    batch = PairBatch(*pixels, labels, torch.zeros_like(labels), torch.arange(4))
    found = []
    for form in ("plain", "fused"):
        words = [f"head.{word}" for word in head]
        config = load_config(None, [*words, f"loss.form={form}", f"train.images={images}"])
        torch.manual_seed(0)
        head_of_all = build_head(config.head, 12, C)
        network = PairClassifier(Flat(), head_of_all, build_adaface(config.head))
        engine = SimpleNamespace(forward=network, module=network)
        objective = objective_of(config)
        assert objective.loss(engine, batch, 0, 0, 0).answers is None
        asked = 3 if images == "pair" else 0
        found.append(objective.loss(engine, batch, 5, 0, asked))
        assert found[-1].total.requires_grad
        assert not any(one.requires_grad for one in found[-1].scalars.values())
    stored, fused = found
    torch.testing.assert_close(stored.scalars, fused.scalars, rtol=1e-5, atol=1e-6)
    if images == "pair":
        assert stored.answers.classes.shape == (2, 3)
        assert torch.equal(stored.answers.classes, fused.answers.classes)
        torch.testing.assert_close(stored.answers.probabilities, fused.answers.probabilities)
