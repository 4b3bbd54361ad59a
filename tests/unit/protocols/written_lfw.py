"""Photographs and a pairs.txt as LFW lays them out, of drawn faces."""

import numpy as np
from drawn_people import draw_face
from PIL import Image

from distill.data.images import encode_jpeg

PEOPLE = [f"First_Last_{i}" for i in range(5)]
FOLDS, HALF = 4, 6


def write_lfw(folder, *, folds=FOLDS, half=HALF, photographs="lfw_funneled", size=112, seed=3):
    """Ten photographs a person; the lines as (fields, same), and the list's path."""
    rng = np.random.default_rng(seed)
    for number, person in enumerate(PEOPLE):
        home = folder / photographs / person
        home.mkdir(parents=True)
        for image in range(1, 11):
            rgb = np.asarray(Image.fromarray(draw_face(rng, number)).resize((size, size)))
            (home / f"{person}_{image:04d}.jpg").write_bytes(encode_jpeg(rgb, 95))
    lines = []
    for _ in range(folds):
        for _ in range(half):
            a, b = rng.choice(10, 2, replace=False) + 1
            lines.append([rng.choice(PEOPLE), a, b])
        for _ in range(half):
            first, second = rng.choice(PEOPLE, 2, replace=False)
            lines.append([first, rng.integers(1, 11), second, rng.integers(1, 11)])
    texts = ["\t".join(map(str, line)) for line in lines]
    path = folder / "pairs.txt"
    path.write_text("\n".join([f"{folds}\t{half}", *texts]) + "\n")
    return path
