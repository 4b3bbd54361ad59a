"""The sheet of pairs: a column a kind, faces in their places."""

from __future__ import annotations

import numpy as np
from PIL import Image

from distill.data.contact_sheet import FACE, MARGIN, TITLE, SheetPair, contact_sheet
from distill.data.images import encode_jpeg


def plain(value: int) -> bytes:
    return encode_jpeg(np.full((112, 112, 3), value, np.uint8))


def test_columns_by_kind_in_order_and_faces_in_place(tmp_path):
    path = tmp_path / "sheet.png"
    pairs = [
        SheetPair("blur", plain(10), plain(20)),
        SheetPair("pose", plain(30), plain(40), "pose: other photo"),
        SheetPair("pose", plain(50), plain(60), "x" * 500),
    ]
    contact_sheet(pairs, path)
    sheet = np.asarray(Image.open(path))
    middle = MARGIN + TITLE + FACE // 2
    row = sheet[middle, :, 0]
    runs = [int(v) for v, before in zip(row[1:], row, strict=False) if v != before]
    seen = [v for v in runs if v in (30, 40, 10, 20)]
    assert seen == [30, 40, 10, 20]


def test_no_pairs_no_file(tmp_path):
    contact_sheet([], tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_the_same_pairs_give_the_same_bytes(tmp_path):
    pairs = [SheetPair("glasses", plain(80), plain(90), "how")]
    for name in ("a.png", "b.png"):
        contact_sheet(pairs, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
