"""One step against the same thing written out with torch's own functions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.config import load_config
from distill.data.batch import PairBatch
from distill.data.keyed import keyed_rng
from distill.losses import PairLossSpec, linear_cross_entropy
from distill.models.classifier import ClassifierOutput
from distill.objective.terms import images_of
from distill.on_host import OnHost
from distill.step import Recipe, _seed_generators, train_step

B, C = 4, 3


class Network(nn.Module):
    """Mean colour to scores, with dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer, self.dropout = nn.Linear(3, C), nn.Dropout(dropout)

    def forward(self, images: torch.Tensor) -> ClassifierOutput:
        embeddings = self.dropout(images.mean((2, 3)))
        return ClassifierOutput(embeddings, self.layer(embeddings))


class FakeEngine:
    """An engine of one rank that collects gradients and makes no update."""

    def __init__(self, network: Network, rank: int = 0, accumulation: int = 1) -> None:
        self.network, self.device = network, torch.device("cpu")
        self.ranks = SimpleNamespace(rank=rank, world_size=1)
        self.accumulation, self.seen, self.calls, self.lr = accumulation, 0, [], 0.0

    def set_lr(self, lr: float) -> None:
        self.lr = lr

    def forward(self, images: torch.Tensor) -> ClassifierOutput:
        self.calls.append(images)
        return self.network(images)

    def backward(self, loss: torch.Tensor) -> None:
        assert loss.dtype == torch.float32
        (loss / self.accumulation).backward()

    def step(self) -> Any:
        self.seen += 1
        if self.seen % self.accumulation:
            return None
        norm = float(self.network.layer.weight.grad.norm())
        skipped = not torch.isfinite(self.network.layer.weight.grad).all()
        return SimpleNamespace(grad_norm=norm, lr=self.lr, skipped=bool(skipped), scale_fell=False)


def batch(seed: int = 0) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(
        0, 256, (2, B, 3, 8, 8), dtype=torch.uint8, generator=generator
    ).unbind()
    labels = torch.arange(B) % C
    return PairBatch(
        first, second, labels, torch.zeros(B, dtype=torch.int64), 100 + torch.arange(B)
    )


def recipe(*overrides: str) -> Recipe:
    settings = ["loss.implementation=reference", "head.kind=linear", *overrides]
    return Recipe(load_config(None, settings), 10)


def expected_terms(network: Network, pairs: PairBatch, temperature: float) -> dict[str, float]:
    """The losses in float64, from their definitions."""
    network = network.double().requires_grad_(False)
    outputs = [network((images.double() - 127.5) / 127.5) for images in (pairs.first, pairs.second)]
    z1, z2 = (output.logits for output in outputs)
    p, q = (F.log_softmax(z / temperature, 1) for z in (z1, z2))
    forward = F.kl_div(q, p, log_target=True, reduction="batchmean")
    reverse = F.kl_div(p, q, log_target=True, reduction="batchmean")
    return {
        "loss/ce_first": float(F.cross_entropy(z1, pairs.labels)),
        "loss/ce_second": float(F.cross_entropy(z2, pairs.labels)),
        "loss/similarity": float(temperature**2 * (forward + reverse) / 2),
        "accuracy/first": float((z1.argmax(1) == pairs.labels).double().mean()),
        "pair/agreement": float((z1.argmax(1) == z2.argmax(1)).double().mean()),
        "pair/embedding_cosine": float(
            F.cosine_similarity(outputs[0].embeddings, outputs[1].embeddings).mean()
        ),
    }


def test_scalars_are_the_definitions_in_float64() -> None:
    pairs = batch()
    engine = FakeEngine(Network())
    report = train_step(engine, [pairs], recipe("loss.weight=0.7"), 3, [0.0, 0.0, 0.0])
    expected = expected_terms(Network(), pairs, 3.0)
    for tag, value in expected.items():
        assert report.scalars[tag] == pytest.approx(value, abs=2e-6), tag
    total = expected["loss/ce_first"] + expected["loss/ce_second"]
    total += 0.7 * expected["loss/similarity"]
    assert report.scalars["loss/total"] == pytest.approx(total, abs=5e-6)
    assert report.scalars["schedule/weight"] == 0.7
    assert (report.skipped, report.blamed, report.stop) == (False, {}, None)


def test_both_images_go_through_in_one_pass() -> None:
    pairs, engine = batch(), FakeEngine(Network())
    train_step(engine, [pairs], recipe(), 0, [0.0, 0.0, 0.0])
    (images,) = engine.calls
    assert images.shape == (2 * B, 3, 8, 8)
    assert torch.equal(images[:B], (pairs.first.float() - 127.5) / 127.5)
    assert images.min() >= -1.0
    assert images.max() <= 1.0


def test_accumulation_means_over_micro_batches() -> None:
    parts = [batch(1), batch(2)]
    both = FakeEngine(Network(), accumulation=2)
    report = train_step(both, parts, recipe(), 0, [0.0, 0.0, 0.0])
    singles = [
        train_step(FakeEngine(Network()), [part], recipe(), 0, [0.0, 0.0, 0.0]) for part in parts
    ]
    mean = sum(single.scalars["loss/total"] for single in singles) / 2
    assert report.scalars["loss/total"] == pytest.approx(mean, rel=1e-12)


def test_losses_are_on_their_way_before_the_update_and_read_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a GPU is waited for once, and works on the update meanwhile."""
    told: list[str] = []

    class Told(OnHost):
        def __init__(self, values: torch.Tensor) -> None:
            told.append("sent")
            super().__init__(values)

        def read(self) -> list[float]:
            told.append("read")
            return super().read()

    monkeypatch.setattr("distill.step.OnHost", Told)
    engine = FakeEngine(Network(), accumulation=2)
    update = engine.step
    engine.step = lambda: [told.append("step"), update()][1]
    pairs = batch(1)
    train_step(engine, [pairs, pairs], recipe(), 0, [0.0, 0.0, 0.0])
    assert told == ["step", "sent", "step", "read"]


def test_the_generator_is_seeded_as_torch_seeds_it() -> None:
    _seed_generators(3, 5, 1, FakeEngine(Network(), rank=2))
    found = torch.rand(9)
    key = keyed_rng("training step", 3, 5, 1, 2)
    torch.manual_seed(int(key.integers(2**63)))
    assert torch.equal(found, torch.rand(9))


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_baseline_sees_first_images_alone(margin: float) -> None:
    pairs, engine = batch(), FakeEngine(Network())
    head = ["head.kind=cosine", "head.scale=2", "head.margin=cosface", f"head.cos_margin={margin}"]
    settings = recipe("train.images=first", *head)
    report = train_step(engine, [pairs], settings, 0, [0.0, 0.0, 0.0])
    (images,) = engine.calls
    assert len(images) == B
    logits = 2 * Network()(images).scores.detach().double()
    logits = logits - 2 * margin * F.one_hot(pairs.labels, C)
    expected = float(F.cross_entropy(logits, pairs.labels))
    assert report.scalars["loss/total"] == pytest.approx(expected, abs=1e-6)
    assert "loss/ce_second" not in report.scalars
    alone = replace(pairs, second=None)
    assert train_step(FakeEngine(Network()), [alone], settings, 0, [0.0] * 3) == report


def test_ignored_images_count_neither_as_right_nor_as_wrong() -> None:
    """As in a streamed loss; with none left the share is 0."""
    network, settings = Network(), recipe("train.images=first")
    for labels in ((0, -1, 2, 1), (-1, 1, -1, 2), (-1, 2, -1, -1), (-1, -1, -1, -1)):
        pairs = replace(batch(), labels=torch.tensor(labels))
        output = network(images_of(pairs, "first"))
        share = float(_stored_scalars(network, pairs, settings)["accuracy/first"])
        kept = [
            (int(row.argmax()), y) for row, y in zip(output.scores, labels, strict=True) if y >= 0
        ]
        assert share == pytest.approx(sum(a == b for a, b in kept) / max(len(kept), 1))
        streamed = linear_cross_entropy(
            output.embeddings,
            network.layer.weight,
            pairs.labels,
            bias=network.layer.bias,
            spec=PairLossSpec(),
        )
        assert share == pytest.approx(float(streamed.correct))


@pytest.mark.parametrize("images", ["pair", "first"])
@pytest.mark.parametrize("implementation", ["reference", "native"])
def test_the_mean_over_no_images_is_zero_and_no_divergence(
    images: str, implementation: str
) -> None:
    nobody = replace(batch(), labels=torch.full((B,), -1))
    settings = recipe(f"train.images={images}", f"loss.implementation={implementation}")
    engine = FakeEngine(Network())
    report = train_step(engine, [nobody], settings, 0, [0.0] * 3)
    assert all(torch.isfinite(torch.tensor(value)) for value in report.scalars.values())
    assert report.scalars["loss/total"] == report.scalars["loss/ce_first"] == 0.0
    assert (report.skipped, report.blamed) == (False, {})
    assert not engine.network.layer.weight.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_baseline_is_torchs_mean_over_the_images_that_count(smoothing: float) -> None:
    pairs = replace(batch(), labels=torch.tensor([0, -1, 2, 1]))
    settings = recipe("train.images=first", f"loss.label_smoothing={smoothing}")
    loss = _stored_scalars(Network(), pairs, settings)["loss/total"]
    scores = Network()(images_of(pairs, "first")).scores.detach()[pairs.labels >= 0]
    expected = F.cross_entropy(scores.double(), torch.tensor([0, 2, 1]), label_smoothing=smoothing)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def _stored_scalars(network: Network, pairs: PairBatch, settings: Recipe) -> Any:
    return settings.objective.loss(FakeEngine(network), pairs, 0, 0, 0).scalars


def test_dropout_is_a_function_of_seed_step_and_rank() -> None:
    def loss(step: int, rank: int, seed: int = 0) -> float:
        torch.manual_seed(999 + step)  # whatever the generator's state was
        engine = FakeEngine(Network(dropout=0.5), rank)
        settings = recipe(f"run.seed={seed}")
        return train_step(engine, [batch()], settings, step, [0.0] * 3).scalars["loss/total"]

    assert loss(4, 0) == loss(4, 0)
    assert len({loss(4, 0), loss(5, 0), loss(4, 1), loss(4, 0, seed=1)}) == 4


def test_nan_is_blamed_on_its_pairs() -> None:
    network = Network()
    with torch.no_grad():
        network.layer.weight.fill_(float("nan"))
    report = train_step(FakeEngine(network), [batch()], recipe(), 0, [0.0, 1.0, 0.0])
    assert report.skipped
    assert report.blamed == {0: [100, 101, 102, 103]}
    assert report.stop is not None
    assert report.stop.name == "SIGTERM"


def test_answers_for_pictures() -> None:
    pairs = batch()
    report = train_step(FakeEngine(Network()), [pairs], recipe(), 0, [0.0] * 3, answers_of=3)
    assert report.answers is not None
    images = torch.stack((pairs.first[:3], pairs.second[:3]))
    inputs = (images.float() - 127.5) / 127.5
    probabilities = Network().layer(inputs.mean((3, 4))).softmax(2)
    assert torch.equal(report.answers.classes, probabilities.argmax(2))
    assert torch.allclose(report.answers.probabilities, probabilities.amax(2))
