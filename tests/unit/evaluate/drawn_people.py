"""Drawn "people", packs of them, and a network that half knows them; for other processes too."""

import csv

import numpy as np
import pytest
import torch

from distill.config.tree import Config, DataConfig, EvaluateConfig, ModelConfig
from distill.data.images import encode_jpeg
from distill.data.pack_writer import EncodedPair, write_pack
from distill.models import build_classifier

KINDS = ["forehead", "blur"]
PEOPLE = [f"person {i}" for i in range(7)]


def draw_face(rng, label):
    """A colour pattern that belongs to the label, and noise that belongs to the photograph."""
    base = np.random.default_rng(label).integers(40, 216, (7, 7, 3))
    face = np.kron(base, np.ones((16, 16, 1))) + rng.normal(0, 25, (112, 112, 3))
    return np.clip(face, 0, 255).astype(np.uint8)


def draw_pairs(labels):
    rng = np.random.default_rng(9)
    for label in labels:
        clean = draw_face(rng, label)
        for kind in range(len(KINDS)):
            second = clean.copy()
            second[: 30 + 20 * kind] = rng.integers(0, 256, 3)
            yield EncodedPair(encode_jpeg(clean), encode_jpeg(second), int(label), kind)


def other_of(labels, number):
    """For every third photograph: the next one of the same person, if there is any."""
    later = [n for n in range(number + 1, len(labels)) if labels[n] == labels[number]]
    return later[0] if number % 3 == 0 and later else -1


def make_pack(folder, labels, purpose="evaluation"):
    """A pack whose second kind says to be made from two photographs now and then."""
    folder.mkdir(parents=True)
    with (folder / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["pair", "identity", "kind", "first", "other", "how", "note"])
        for number, label in enumerate(labels):
            for kind, name in enumerate(KINDS):
                other = other_of(labels, number) if kind == 1 else -1
                source = f"photo, {other}\n" if other >= 0 else ""
                pair = number * len(KINDS) + kind
                table.writerow([pair, PEOPLE[label], name, f"photo, {number}\n", source, "", ""])
    return write_pack(
        folder,
        draw_pairs(labels),
        len(labels) * len(KINDS),
        identities=PEOPLE,
        kinds=KINDS,
        purpose=purpose,
        photographs=len(labels),
    )


def make_config():
    return Config(
        model=ModelConfig(name="tiny", embedding_dim=24),
        data=DataConfig(reader="python"),
        evaluate=EvaluateConfig(batch_images=11),
    )


def make_model(classes=7):
    """Random features, and as the weight of each class one noisy example: right now and then."""
    torch.manual_seed(2)
    model = build_classifier(make_config(), classes)
    rng = np.random.default_rng(1)
    faces = np.stack([draw_face(rng, label % 7) for label in range(14)]).transpose(0, 3, 1, 2)
    images = torch.from_numpy(faces).float() / 127.5 - 1
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # running statistics are those of this batch
    with torch.no_grad():
        examples = model(images).embeddings[:classes]
        model.head.weight.copy_(examples + 0.6 * examples.std() * torch.randn(examples.shape))
    return model.eval()


def assert_close(mine, theirs):
    """Two conditions are equal but for rounding: other batches add up in another order."""
    for part in ("identification", "verification"):
        for name, value in mine[part].items():
            if name == "curve":
                np.testing.assert_allclose(value, theirs[part][name], atol=0.03)
            else:
                assert theirs[part][name] == pytest.approx(value, abs=1e-3), name
