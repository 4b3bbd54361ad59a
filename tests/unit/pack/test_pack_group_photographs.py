"""Several faces of one photograph, each with landmarks of its own."""

import csv

import cv2
import numpy as np
import pytest

from distill.data.faces import TEMPLATE
from distill.data.images import decode
from distill.data.pack import PackOptions, open_source, pack
from distill.errors import UserError

COLUMNS = ["path", "identity", *(f"{axis}{point}" for point in range(1, 6) for axis in "xy")]
SHADES = {"ann": 40, "bob": 200}


@pytest.fixture
def groups(tmp_path):
    """Photographs of two people side by side, by their shades of grey; and the list of faces."""
    rows = []
    for number in range(3):
        photograph = np.full((132, 300, 3), 10 * number, np.uint8)
        for place, (name, shade) in enumerate(SHADES.items()):
            left = 150 * place + 10
            photograph[10:122, left : left + 112] += np.uint8(shade)
            points = TEMPLATE + np.array([left, 10])
            rows.append([f"{number}.png", name, *points.ravel().tolist()])
        cv2.imwrite(str(tmp_path / f"{number}.png"), photograph)
    return listed(tmp_path / "list.csv", rows)


def listed(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path, rows


def packed(path, out, **changes):
    return pack(open_source(str(path)), out, PackOptions(workers=1, kinds={"blur": 1.0}, **changes))


def test_all_faces_of_a_photograph_are_packed_under_their_names(groups, tmp_path):
    path, _ = groups
    made = packed(path, tmp_path / "out").train
    assert made.manifest.identities == list(SHADES)
    assert made.manifest.pairs_per_identity == [3, 3]
    for shard in made.index.shards:
        for label, place in zip(shard.samples["label"], shard.allocations[:, 0], strict=True):
            with shard.path.open("rb") as file:
                file.seek(int(place["ptr"]))
                face = decode(file.read(int(place["size"])))
            number = round((face.mean() - list(SHADES.values())[label]) / 10)
            assert number in (0, 1, 2), "the face of somebody else"


def test_the_same_face_twice_is_packed_once(groups, tmp_path):
    path, rows = groups
    listed(path, [*rows, ["0.png", "eve", *rows[0][2:]]])
    made = packed(path, tmp_path / "out").train
    assert made.manifest.identities == list(SHADES)
    assert (
        "same content as 0.png, which is of another person"
        in (tmp_path / "out" / "rejected.csv").read_text()
    )


def test_who_is_beside_somebody_left_out_stays(groups, tmp_path):
    path, rows = groups
    listed(path, [*rows, ["0.png", "eve", *rows[1][2:]]])
    made = packed(path, tmp_path / "out", without=("bob",), max_rejected=0.0).train
    assert made.manifest.identities == ["ann"]
    assert made.manifest.photographs == 3 and made.manifest.samples_rejected == 4


def test_other_landmarks_are_another_request(groups, tmp_path):
    path, rows = groups
    packed(path, tmp_path / "out")
    assert packed(path, tmp_path / "out").reused
    listed(path, [[*rows[0][:2], *(value + 1 for value in rows[0][2:])], *rows[1:]])
    with pytest.raises(UserError, match="holds a pack of other photographs"):
        packed(path, tmp_path / "out")
