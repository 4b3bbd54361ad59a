"""Every odd image of the issue: converted as documented, or `Unusable` with its reason."""

from __future__ import annotations

import struct
import time
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distill.data.images import BACKGROUND, MAX_SCANS, Unusable, decode, encode_jpeg
from distill.data.jpeg_scans import scans_of

EXACT = ["PNG", "BMP", "TIFF", "PPM"]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("kind", EXACT)
def test_lossless_formats_give_the_very_pixels(picture, save, kind):
    assert np.array_equal(decode(save(Image.fromarray(picture), kind)), picture)


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("TIFF", "CMYK"), ("WEBP", "RGB")]
)
def test_other_colour_spaces_and_codecs_stay_close(picture, save, kind, mode):
    got = decode(save(Image.fromarray(picture).convert(mode), kind, quality=95))
    assert got.shape == picture.shape
    assert difference(got, picture) < 4


def test_jpeg_equals_an_independent_decoder(picture):
    data = encode_jpeg(picture)
    opencv = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert difference(decode(data), opencv) < 1


def test_result_is_owned_contiguous_and_writable(picture, save):
    got = decode(save(Image.fromarray(picture), "PNG"))
    got[:] = 0
    assert got.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_grey_becomes_three_equal_channels(picture, save, kind):
    got = decode(save(Image.fromarray(picture).convert("L"), kind))
    assert got.shape == picture.shape
    assert np.array_equal(got[..., 0], got[..., 2])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_the_high_byte(picture, save, kind):
    deep = picture[..., 0].astype(np.uint16) * 256 + 77
    got = decode(save(Image.fromarray(deep), kind))
    assert difference(got[..., 1], picture[..., 0]) <= 1


def test_16_bit_colour_png(picture):
    ok, data = cv2.imencode(".png", picture[..., ::-1].astype(np.uint16) * 257)
    assert ok
    assert difference(decode(data.tobytes()), picture) <= 1


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_float_tiff_in_either_range(picture, save, scale):
    values = (picture[..., 0] / 255 * scale).astype(np.float32)
    assert difference(decode(save(Image.fromarray(values), "TIFF"))[..., 0], picture[..., 0]) <= 1


def test_palette(picture, save):
    reduced = Image.fromarray(picture).quantize(64)
    assert np.array_equal(decode(save(reduced, "PNG")), np.asarray(reduced.convert("RGB")))


def test_transparency_lies_over_the_documented_background(picture, save):
    alpha = np.zeros(picture.shape[:2], np.uint8)
    alpha[:, 48:] = 255
    alpha[:, 40:48] = 128
    image = Image.fromarray(np.dstack([picture, alpha]))
    got = decode(save(image, "PNG"))
    assert (got[:, :40] == BACKGROUND).all()
    assert np.array_equal(got[:, 48:], picture[:, 48:])
    half = 0.5 * picture[:, 40:48] + 0.5 * np.array(BACKGROUND)
    assert difference(got[:, 40:48], half) < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_rotation_agrees_with_pillow(picture, save, orientation, kind):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(Image.fromarray(picture), kind, exif=exif)
    import io

    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    got = decode(data)
    assert got.shape == expected.shape
    assert difference(got, expected) < 1


def test_a_damaged_exif_block_does_not_lose_the_image(picture, save):
    data = bytearray(save(Image.fromarray(picture), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff"))
    assert decode(bytes(data)).shape == picture.shape


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"not an image at all, but a text", "not an image"),
        (b"\xff\xd8\xff", "not an image|damaged"),
        (b"GIF89a", "damaged|not an image"),
        (b"%PDF-1.7", "not an image"),
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "^HEIC, which is not read: convert it to JPEG$"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "^AVIF, which is not read: convert it to JPEG$"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", "not an image"),  # a film
    ],
)
def test_what_is_no_image(data, reason):
    with pytest.raises(Unusable, match=reason):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated(picture, save, kind, share):
    data = save(Image.fromarray(picture), kind)
    with pytest.raises(Unusable):
        decode(data[: int(len(data) * share)])


def test_truncated_cmyk(picture, save):
    data = save(Image.fromarray(picture).convert("CMYK"), "JPEG")
    with pytest.raises(Unusable, match="truncated"):
        decode(data[: len(data) // 2])


def test_a_flipped_block_inside_a_jpeg_is_damage_not_pixels(picture):
    data = bytearray(encode_jpeg(picture))
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff\xd4" * 20
    with pytest.raises(Unusable, match="damaged"):
        decode(bytes(data))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (15, 15), (20000, 1)])
def test_too_small(save, size):
    with pytest.raises(Unusable, match="too small"):
        decode(save(Image.new("RGB", size), "PNG"))


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes of pixels do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (30_000, 30_000), (60_000, 20), (9_500, 9_500)])
def test_a_bomb_is_refused_by_its_header_alone(size):
    start = time.process_time()
    with pytest.raises(
        Unusable, match=r"^too large \(.*at most 80000000 pixels and 30000 a side\)$"
    ):
        decode(png_of(*size))
    assert time.process_time() - start < 1


def test_the_pixel_cap_is_the_callers(picture, save):
    data = save(Image.fromarray(picture), "PNG")
    assert decode(data, max_pixels=64 * 96).shape == picture.shape
    with pytest.raises(Unusable, match="too large"):
        decode(data, max_pixels=64 * 96 - 1)


def test_a_jpeg_of_endless_scans_is_refused(picture, save):
    data = save(Image.fromarray(picture), "JPEG", progressive=True)
    assert decode(data).shape == picture.shape
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * (MAX_SCANS + 1) + data[-2:]
    with pytest.raises(Unusable, match="scans"):
        decode(bomb)


def in_segments(data):
    """Bytes as a camera's own segments (APP2)."""
    parts = [data[start : start + 60_000] for start in range(0, len(data), 60_000)]
    return b"".join(b"\xff\xe2" + struct.pack(">H", len(part) + 2) + part for part in parts)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("where", ["behind", "before"])
def test_what_phones_add_to_a_photograph_holds_no_scans(picture, save, where, progressive):
    """A film behind it, a preview before it: any bytes, among them those of a scan's marker."""
    data = save(Image.fromarray(picture), "JPEG", progressive=progressive)
    film = np.random.default_rng(0).bytes(60_000) + b"\xff\xda\xff\xd9" * (MAX_SCANS + 1)
    more = data + film if where == "behind" else data[:2] + in_segments(film) + data[2:]
    assert np.array_equal(decode(more), decode(data))


@pytest.mark.parametrize("hidden", [b"\xff\xd0", b"\xff" * 9, b"\xff\x01", b"\0"])
def test_scans_are_counted_whatever_stands_between_them(picture, save, hidden):
    data = save(Image.fromarray(picture), "JPEG", progressive=True, restart_marker_rows=1)
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + (hidden + data[last:-2]) * (MAX_SCANS + 1) + data[-2:]
    with pytest.raises(Unusable, match="scans"):
        decode(bomb)


@given(st.binary(max_size=200), st.integers(1, 40))
def test_scans_of_any_bytes_are_told_in_time(noise, count):
    """Never more than look like some, and all of those of a plain file."""
    looking = noise.count(b"\xff\xda")
    assert 0 <= scans_of(noise) <= looking
    scan = b"\xff\xda\0\3x" + noise.replace(b"\xff", b"\xff\0") + b"\0"
    assert scans_of(b"\xff\xd8" + scan * count + b"\xff\xd9" + b"\xff\xda" * 50) == count


def test_scans_behind_a_million_markers_are_still_counted():
    data = b"\xff\xd8" + b"\xff\x01" * 1_000_000 + b"\xff\xda\0\2" * 3 + b"\xff\xd9\xff\xda"
    assert scans_of(data) == 4  # the last one only looks like it: nobody walks that far


def test_a_reason_is_one_line():
    assert "\n" not in Unusable("a\nb").reason


def test_encode_is_deterministic_444_and_close(picture):
    data = encode_jpeg(picture)
    assert data == encode_jpeg(picture.copy())
    assert simplejpeg.decode_jpeg_header(data)[3] == "444"
    assert difference(decode(data), picture) < 2


def test_encode_takes_strided_views(picture):
    assert encode_jpeg(picture[:, ::-1]) == encode_jpeg(picture[:, ::-1].copy())
