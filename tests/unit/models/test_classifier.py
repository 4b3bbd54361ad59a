"""The classifier: what it returns, from which settings, and that its smallest form learns."""

import pytest
import torch
import torch.nn.functional as F

from distill.config.tree import Config, HeadConfig, ModelConfig
from distill.errors import UserError
from distill.models import PairClassifier, build_classifier
from distill.models.classifier import Embedder, build_for_training, shapes_of
from distill.ranks import Ranks


def tiny_config(**head):
    return Config(model=ModelConfig(name="tiny", embedding_dim=32), head=HeadConfig(**head))


def test_output_shapes():
    model = build_classifier(tiny_config(margin="arcface"), classes=5)
    assert isinstance(model, PairClassifier)
    output = model(torch.randn(4, 3, 112, 112))
    assert output.embeddings.shape == (4, 32)
    assert output.logits.shape == (4, 5)
    assert output.scores.abs().max() <= 1.0 + 1e-6
    assert torch.equal(output.logits, 64.0 * output.scores)
    linear = build_classifier(tiny_config(kind="linear"), classes=5)(torch.randn(2, 3, 112, 112))
    assert linear.logits is linear.scores


def test_same_seed_same_weights():
    def built():
        torch.manual_seed(3)
        return build_classifier(tiny_config(), classes=4).state_dict()

    assert all(torch.equal(a, b) for a, b in zip(built().values(), built().values(), strict=True))


@pytest.mark.parametrize("world_size", [1, 3])
def test_training_begins_alike_wherever_the_head_stands(world_size):
    def built(placement, rank):
        config = tiny_config(placement=placement, margin="adaface")
        torch.manual_seed(3)
        ranks = Ranks(rank, world_size, rank, world_size, torch.device("cpu"))
        return build_for_training(config, 7, ranks)

    whole, nothing = built("replicated", 0)
    assert nothing is None and isinstance(whole, PairClassifier)
    parts = []
    for rank in range(world_size):
        network, head = built("sharded", rank)
        assert isinstance(network, Embedder) and head.ranges.rank == rank
        expected = {n: x for n, x in whole.state_dict().items() if not n.startswith("head.")}
        found = network.state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], x) for name, x in expected.items())
        parts.append(head.local.weight)
    assert torch.equal(torch.cat(parts), whole.head.weight)


@pytest.mark.parametrize("head", [{"kind": "linear"}, {"margin": "adaface", "sub_centres": 2}])
@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_shapes_are_told_without_the_weights(head, placement):
    alone = Ranks(0, 1, 0, 1, torch.device("cpu"))
    drawn = torch.get_rng_state()
    told = shapes_of(tiny_config(placement=placement, **head), 7)
    assert torch.equal(torch.get_rng_state(), drawn)
    network, apart = build_for_training(tiny_config(placement=placement, **head), 7, alone)
    tensors = network.state_dict()
    if apart is not None:
        tensors |= {f"head.{name}": x for name, x in apart.local.state_dict().items()}
    assert told == {name: tuple(x.shape) for name, x in tensors.items()}


@pytest.mark.parametrize(("classes", "people"), [(0, "0 people"), (1, "1 person")])
def test_one_class_is_an_error(classes, people):
    words = f"data.train: {people} in all, and a classifier needs two"
    with pytest.raises(UserError, match=f"^{words}; pack the photographs of more people$"):
        build_classifier(tiny_config(), classes)


def test_tiny_learns_ten_people_of_noise_patterns():
    """Ten fixed patterns under noise and shifts: nearly all recognised after 40 small steps."""
    torch.manual_seed(0)
    patterns = F.interpolate(torch.randn(10, 3, 14, 14), size=112, mode="bilinear")
    model = build_classifier(tiny_config(scale=16.0), classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def batch():
        labels = torch.arange(20) % 10
        return patterns[labels] + 0.5 * torch.randn(20, 3, 112, 112), labels

    for _ in range(40):
        images, labels = batch()
        optimizer.zero_grad()
        F.cross_entropy(model(images).logits, labels).backward()
        optimizer.step()
    images, labels = batch()
    assert (model.eval()(images).logits.argmax(1) == labels).float().mean() >= 0.9
