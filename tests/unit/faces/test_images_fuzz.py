"""Mutated files: `decode` gives pixels or `Unusable`, nothing else, in bounded time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from distill.data.images import Unusable, decode

MAX_PIXELS = 4_000_000
SECONDS = 5.0
KINDS = ["JPEG", "PROGRESSIVE", "CMYK", "PNG", "PALETTE", "GIF", "WEBP", "TIFF", "BMP", "PPM"]

mutations = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["set", "insert", "delete", "repeat", "cut"]),
        st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def files(save, picture) -> dict[str, bytes]:
    image = Image.fromarray(picture)
    made = {k: save(image, k) for k in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")}
    made["PROGRESSIVE"] = save(image, "JPEG", progressive=True, exif=exif())
    made["CMYK"] = save(image.convert("CMYK"), "JPEG")
    made["PALETTE"] = save(image.quantize(16), "PNG", transparency=3)
    return made


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6
    return tags


def mutated(data: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    out = bytearray(data)
    for place, how, value in changes:
        # The square brings half of the changes into the first quarter: headers.
        at = int(place**2 * len(out))
        if how == "set":
            out[at : at + len(value)] = value
        elif how == "insert":
            out[at:at] = value
        elif how == "delete":
            del out[at : at + 8 * len(value)]
        elif how == "repeat":
            out[at:at] = out[at : at + 64]
        else:
            del out[max(at, 1) :]
    return bytes(out)


@pytest.mark.parametrize("kind", KINDS)
@given(changes=mutations)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_mutated_files(files, kind, changes):
    data = mutated(files[kind], changes)
    start = time.process_time()  # a busy machine may take longer
    try:
        pixels = decode(data, max_pixels=MAX_PIXELS)
    except Unusable as fault:
        assert fault.reason
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    assert time.process_time() - start < SECONDS


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_random_bytes_behind_every_signature(data):
    for signature in (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0",
        b"BM",
        b"P6 ",
    ):
        with pytest.raises(Unusable):
            decode(signature + data)
