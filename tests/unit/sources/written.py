"""Writers that know nothing of the readers: RecordIO word by word, and small images."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

MAGIC_BYTES = bytes.fromhex("0a23d7ce")  # 0xced7230a, least significant byte first


def jpeg(seed: int, side: int = 32) -> bytes:
    """A small photograph-like JPEG; another one for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(30, 220, (6, 6, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def framed(content: bytes) -> bytes:
    """One RecordIO record, split wherever the magic stands at a multiple of 4."""
    pieces, begin = [], 0
    for at in range(0, len(content) // 4 * 4, 4):
        if content[at : at + 4] == MAGIC_BYTES:
            pieces.append(content[begin:at])
            begin = at + 4
    pieces.append(content[begin:])
    out = b""
    for i, piece in enumerate(pieces):
        first, last = i == 0, i == len(pieces) - 1
        kind = {(True, True): 0, (True, False): 1, (False, False): 2, (False, True): 3}[first, last]
        out += MAGIC_BYTES + struct.pack("<I", kind * 2**29 + len(piece)) + piece
        out += bytes((4 - len(piece) % 4) % 4)
    return out


def image_record(label: float | Iterable[float], image: bytes, number: int = 0) -> bytes:
    """The content of an image record: flag, label, two numbers, labels, image."""
    if isinstance(label, int | float):
        return struct.pack("<IfQQ", 0, label, number, 0) + image
    labels = list(label)
    head = struct.pack("<IfQQ", len(labels), 0.0, number, 0)
    return head + struct.pack(f"<{len(labels)}f", *labels) + image


def record_file(
    folder: Path,
    images: list[tuple[float | Iterable[float], bytes]],
    *,
    described: bool = True,
    index: bool = True,
    people: int | None = None,
    stem: str = "train",
) -> Path:
    """A ``.rec`` as InsightFace writes it: key 0 describes it, images, then a record a person."""
    contents: list[tuple[int, bytes]] = []
    end = len(images) + 1
    if described:
        contents.append((0, image_record([float(end), float(end + 2)], b"")))
    for key, (label, image) in enumerate(images, 1):
        contents.append((key, image_record(label, image, key)))
    if described:
        contents.append((end, image_record([1.0, 2.0], b"", end)))
        contents.append((end + 1, image_record([2.0, float(end)], b"", end + 1)))
    folder.mkdir(parents=True, exist_ok=True)
    data, lines = b"", ""
    for key, content in contents:
        lines += f"{key}\t{len(data)}\n"
        data += framed(content)
    (folder / f"{stem}.rec").write_bytes(data)
    if index:
        (folder / f"{stem}.idx").write_text(lines)
    if people is not None:
        (folder / "property").write_text(f"{people},112,112\n")
    return folder / f"{stem}.rec"


def shard(
    path: Path, files: Iterable[tuple[str, bytes | tarfile.TarInfo]], form: int = tarfile.PAX_FORMAT
) -> Path:
    """A tar file of (name, content); content may be a `TarInfo` for what is no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def outcome(source) -> list[tuple[str, bytes | str]]:
    """What a source gives: person and bytes, or "" and the reason; in order."""
    from distill.data.images import Unusable

    found: list[tuple[str, bytes | str]] = []
    for sample in source:
        try:
            found.append((sample.identity, sample.read()))
        except Unusable as fault:
            found.append(("", fault.reason))
    return found


def good(source) -> list[tuple[str, bytes]]:
    """Only what can be read."""
    return [(who, what) for who, what in outcome(source) if isinstance(what, bytes)]


def bad(source) -> list[str]:
    """Only the reasons."""
    return [what for _, what in outcome(source) if isinstance(what, str)]


PLAIN = [jpeg(0), jpeg(1), jpeg(2), jpeg(3)]
_TRICKY = [
    MAGIC_BYTES + b"abcd",
    b"abcd" + MAGIC_BYTES,
    b"wxyz" + 2 * MAGIC_BYTES + b"12",
    b"x" + MAGIC_BYTES + b"y",
]
_PEOPLE = [0, 1, 1, 4, 2, 2, 7, 7]
IMAGES = list(zip(map(float, _PEOPLE), PLAIN + _TRICKY, strict=True))
"""Labels and images; the last four hold the magic at the start, the end, twice, and out of step."""
EXPECTED = [(str(who), image) for who, image in zip(_PEOPLE, PLAIN + _TRICKY, strict=True)]
"""What a source gives of them."""
