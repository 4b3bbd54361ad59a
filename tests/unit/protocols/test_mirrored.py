"""How ranks share the images of a set: each is read once, few at a time, and mistakes end it."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.errors import UserError
from distill.evaluate.mirrored import BATCHES_AHEAD, Embedder
from distill.ranks import Ranks


class Faces:
    """Images whose first pixel is their number; remembers which were asked for."""

    path, name = Path("faces"), "faces"

    def __init__(self, count, broken=None):
        self.count, self.broken, self.asked = count, broken, []
        self._lock = threading.Lock()

    def __len__(self):
        return self.count

    def face(self, number):
        with self._lock:
            self.asked.append(number)
        if number == self.broken:
            raise UserError(f"image {number}", fix="get it anew")
        rgb = np.zeros((112, 112, 3), np.uint8)
        rgb[0, 0] = number
        return rgb, "not found" if number % 5 == 0 else ""


class Corners(torch.nn.Module):
    """As embedding the first and the last pixel of the first row, from 0 to 255."""

    def forward(self, images):
        return images[:, 0, 0, [0, -1]] * 127.5 + 127.5


def embedder(rank, world_size, batch=4):
    done = []
    ranks = Ranks(rank, world_size, rank, world_size, torch.device("cpu"))
    return Embedder(Corners(), ranks, batch, done.append), done


@pytest.mark.parametrize(("images", "world_size"), [(23, 1), (23, 3), (2, 4)])
def test_every_image_is_embedded_once_by_one_rank(images, world_size):
    seen, asked = [], []
    for rank in range(world_size):
        faces = Faces(images)
        mine, done = embedder(rank, world_size)
        for part in mine.parts(faces):
            first, mirrored = part.both.round().int().tolist()
            for number, straight, turned in zip(
                part.numbers.tolist(), first, mirrored, strict=True
            ):
                assert straight[0] == turned[1] == number and straight[1] == turned[0] == 0
                seen.append(number)
        assert sum(done) == len(faces.asked) <= -(-images // world_size)
        asked += faces.asked
    assert sorted(seen) == sorted(asked) == list(range(images))


def test_totals_are_of_images_and_mirror_images():
    mine, _ = embedder(0, 1)
    faces = Faces(11)
    list(mine.parts(faces))
    totals = mine.totals()
    assert totals.mean_length == pytest.approx(np.mean(range(11)), rel=1e-5)
    assert totals.not_found == 3


def test_few_images_are_in_memory_whatever_their_number():
    mine, _ = embedder(0, 1, batch=4)
    faces, taken = Faces(200), 0
    for part in mine.parts(faces):
        taken += len(part.numbers)
        assert len(faces.asked) <= taken + 4 * BATCHES_AHEAD


def test_an_image_that_cannot_be_used_ends_it():
    mine, _ = embedder(0, 1)
    faces = Faces(10_000, broken=9)
    with pytest.raises(UserError, match="image 9"):
        list(mine.parts(faces))
    assert len(faces.asked) <= 4 * (3 + BATCHES_AHEAD), "nothing is asked for after that"
    assert not [t for t in threading.enumerate() if t.name.startswith("pairdistill-faces")]
