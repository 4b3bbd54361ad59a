"""Drawn people, a fifth of whose photographs carry another's name, and a fixed network."""

import csv
from functools import cache

import numpy as np
import simplejpeg
import torch

from distill.config.tree import Config, DataConfig, EvaluateConfig, HeadConfig, ModelConfig
from distill.data.images import encode_jpeg
from distill.data.pack_writer import EncodedPair, write_pack
from distill.models.registry import build_backbone

PEOPLE, EACH, REPEATS, WRONG = 9, 12, 2, 0.2
IDENTITIES = [f"person, {i}\n" for i in range(PEOPLE)]  # any name has to survive
KINDS = ["blur", "eyes"]


def draw_face(rng, person):
    """A colour pattern that belongs to the person, and noise that belongs to the photograph."""
    base = np.random.default_rng(person).integers(40, 216, (7, 7, 3))
    face = np.kron(base, np.ones((16, 16, 1))) + rng.normal(0, 25, (112, 112, 3))
    return np.clip(face, 0, 255).astype(np.uint8)


def make_pack(folder):
    """Two pairs a photograph; the second image of the second one is made from the next."""
    rng, pairs, rows, wrong = np.random.default_rng(5), [], [], []
    for number in range(PEOPLE * EACH):
        person = shown = number // EACH
        if rng.random() < WRONG:
            shown = (person + int(rng.integers(1, PEOPLE))) % PEOPLE
            wrong.append(number * REPEATS)
        first, second = encode_jpeg(draw_face(rng, shown)), encode_jpeg(draw_face(rng, shown))
        following = person * EACH + (number + 1) % EACH
        for repeat in range(REPEATS):
            pairs.append(EncodedPair(first, second, person, repeat))
            other = f"photo, {following}\n" if repeat else ""
            rows.append([IDENTITIES[person], KINDS[repeat], f"photo, {number}\n", other, "", ""])
    options = {"identities": IDENTITIES, "kinds": KINDS, "photographs": PEOPLE * EACH}
    pack = write_pack(folder, pairs, len(pairs), shard_bytes=400_000, **options)
    assert len(pack.manifest.shards) > 2
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["pair", "identity", "kind", "first", "other", "how", "note"])
        table.writerows([number, *row] for number, row in enumerate(rows))
    return pack, set(wrong)


def make_config(**head):
    return Config(
        model=ModelConfig(name="tiny", embedding_dim=24),
        head=HeadConfig(**{"kind": "cosine"} | head),
        data=DataConfig(reader="python"),
        evaluate=EvaluateConfig(batch_images=11),
    )


def as_input(faces):
    return torch.from_numpy(np.stack(faces).transpose(0, 3, 1, 2)).float() / 127.5 - 1


@cache
def make_model():
    """Random features whose statistics are those of the drawn people."""
    torch.manual_seed(2)
    model = build_backbone("tiny", embedding_dim=24)
    rng = np.random.default_rng(1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # running statistics are those of this batch
    with torch.no_grad():
        model(as_input([draw_face(rng, number % PEOPLE) for number in range(4 * PEOPLE)]))
    return model.eval()


def true_centres():
    """The mean embedding of each person on photographs that are in no pack, (C, D)."""
    rng = np.random.default_rng(8)
    with torch.no_grad():
        means = [make_model()(as_input([draw_face(rng, p) for _ in range(8)])).mean(0)
                 for p in range(PEOPLE)]  # fmt: skip
    return torch.nn.functional.normalize(torch.stack(means))


def embeddings_of(pack):
    """Of the first image of each photograph, decoded here and embedded in one batch, float64."""
    faces = []
    for shard in pack.index.shards:
        data = shard.path.read_bytes()
        for regions in shard.allocations:
            start, size = int(regions[0]["ptr"]), int(regions[0]["size"])
            faces.append(simplejpeg.decode_jpeg(data[start : start + size], fastdct=True))
    with torch.no_grad():
        found = make_model()(as_input(faces[::REPEATS])).double().numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)
