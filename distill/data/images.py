"""Untrusted image bytes in, RGB pixels out; RGB pixels in, JPEG bytes out.

Whatever the bytes hold, `decode` either returns upright 8-bit RGB or raises `Unusable` with a
reason fit for a table. The size is checked from the header, before any pixel is decoded.
JPEG is decoded by libjpeg-turbo in strict mode (damage that it would only warn about counts as
damage); everything else, and CMYK, goes through Pillow. Colour profiles are ignored.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from distill.data.jpeg_scans import scans_of
from distill.errors import one_line

Pixels = npt.NDArray[np.uint8]
"""RGB, (H, W, 3) uint8."""

MAX_PIXELS = 80_000_000
"""Largest area that is decoded unless the caller says otherwise (240 MB of RGB)."""
MAX_SIDE = 30_000
"""Longest side that is decoded, in pixels; also keeps 1-pixel-high stripes out."""
MIN_SIDE = 16
"""Shortest side in which a face could be told, in pixels."""
MAX_SCANS = 32
"""Scans of a progressive JPEG (encoders write about 10); more is a bomb made of time."""
BACKGROUND = (127, 127, 127)
"""Colour under transparent pixels: mid-grey, which the network reads as zero."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""The only decoders that untrusted bytes may reach (of an animation, the first frame counts)."""

_NOT_READ = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
"""Images by the major brand of the file (ISO/IEC 23008-12, AV1 Image File Format)."""

_DECODER_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow's parsers raise on mutated files, named one by one; the fuzz test keeps it honest."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
"""EXIF orientation (tag 0x0112, EXIF 2.3 section 4.6.4) to the operation that undoes it."""


class Unusable(Exception):
    """An image that cannot be used; ``reason`` is one line for `rejected.csv`."""

    def __init__(self, reason: str) -> None:
        self.reason = one_line(reason)
        super().__init__(self.reason)


def decode(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Pixels:
    """Decodes an image of any `FORMATS` to upright RGB.

    Grey and palette become RGB, 16-bit is scaled to 8, CMYK converted, transparency laid over
    `BACKGROUND`, and the EXIF orientation applied.

    Args:
        data: the bytes of the file, trusted in nothing.
        max_pixels: largest width x height to decode.
        min_side: shortest side to decode, in pixels.

    Returns:
        (H, W, 3) uint8, C-contiguous and writable.

    Raises:
        Unusable: empty, not an image, truncated, damaged, too small or too large.
    """
    with _header(data, max_pixels, min_side) as image:
        return _upright(_pixels(image, data), _orientation(image))


class Facts(NamedTuple):
    """What the header of an image says.

    Attributes:
        size: width and height in pixels, as stored.
        colour: Pillow's mode and the format, for example ``RGB JPEG``.
    """

    size: tuple[int, int]
    colour: str


def facts(data: bytes, *, decoded: bool, min_side: int = MIN_SIDE) -> Facts:
    """Size and colour of an image.

    Args:
        data: the bytes of the file, trusted in nothing.
        decoded: whether all of it must decode; else only its header is read.
        min_side: as in `decode`.

    Raises:
        Unusable: as `decode`.
    """
    if decoded:
        decode(data, min_side=min_side)
    with _header(data, MAX_PIXELS, min_side) as image:
        return Facts(image.size, f"{image.mode} {image.format}")


def encode_jpeg(rgb: Pixels, quality: int = 95) -> bytes:
    """JPEG without chroma subsampling (4:4:4); the same bytes for the same pixels, always.

    Args:
        rgb: (H, W, 3) uint8.
        quality: libjpeg's scale, 1 .. 100.
    """
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb),
        quality=quality,
        colorspace="RGB",
        colorsubsampling="444",
        fastdct=False,
    )
    return encoded


@contextmanager
def _header(data: bytes, max_pixels: int, min_side: int = MIN_SIDE) -> Iterator[Image.Image]:
    """A block with an image of a size that may be decoded; of Pillow's warnings bombs alone count.

    Raises:
        Unusable: no image, a damaged header, or another size.
    """
    if not data:
        raise Unusable("empty file (zero bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _opened(data)
        _check_size(*image.size, max_pixels, min_side)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield image


def _opened(data: bytes) -> Image.Image:
    """The image with its header read and no pixel decoded."""
    # Pillow registers these two only once they are imported.
    assert TiffImagePlugin.TiffImageFile.format and WebPImagePlugin.WebPImageFile.format
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unusable(_not_read(data)) from None
    except Image.DecompressionBombError:
        raise Unusable(f"too large (at most {MAX_PIXELS} pixels and {MAX_SIDE} a side)") from None
    except _DECODER_FAULTS as fault:
        raise Unusable(f"damaged header: {_said(fault)}") from None


def _not_read(data: bytes) -> str:
    """Why bytes are no image here; what a phone makes is known, though not read."""
    name = _NOT_READ.get(data[8:12]) if data[4:8] == b"ftyp" else None
    if name:
        return f"{name}, which is not read: convert it to JPEG"
    return f"not an image ({len(data)} bytes of no known format)"


def _check_size(width: int, height: int, max_pixels: int, min_side: int) -> None:
    if min(width, height) < min_side:
        raise Unusable(f"too small ({width}x{height}, at least {min_side} pixels a side)")
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limit = f"at most {max_pixels} pixels and {MAX_SIDE} a side"
        raise Unusable(f"too large ({width}x{height}, {limit})")


def _pixels(image: Image.Image, data: bytes) -> Pixels:
    """The pixels as stored, before any rotation."""
    try:
        if image.format in ("JPEG", "MPO"):
            return _jpeg_pixels(image, data)
        image.load()
        return _to_rgb(image)
    except _DECODER_FAULTS as fault:
        raise Unusable(f"truncated or damaged {image.format}: {_said(fault)}") from None


def _jpeg_pixels(image: Image.Image, data: bytes) -> Pixels:
    """Strict decoding by libjpeg-turbo; CMYK, which it does not convert, through Pillow."""
    if scans_of(data) > MAX_SCANS:
        raise Unusable(f"too many JPEG scans (at most {MAX_SCANS})")
    if image.mode not in ("RGB", "L"):
        image.load()
        return _to_rgb(image)
    decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    if decoded.shape[1::-1] != image.size:
        raise Unusable("truncated or damaged JPEG: two sizes in one file")
    return decoded


def _to_rgb(image: Image.Image) -> Pixels:
    """Any of Pillow's modes as 8-bit RGB."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return np.repeat(_to_8_bit(np.asarray(image))[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(below, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _to_8_bit(grey: npt.NDArray[np.generic]) -> Pixels:
    """Deep grey as 8 bits: 16-bit integers by their high byte, floats from [0, 1] or [0, 255]."""
    if grey.dtype == np.uint16:
        return (grey.astype(np.uint16) >> 8).astype(np.uint8)
    values = np.nan_to_num(grey.astype(np.float64), nan=0.0, posinf=255.0, neginf=0.0)
    top = float(values.max())
    if grey.dtype.kind == "f" and top <= 1.0:
        values = values * 255.0
    elif top > 255.0:
        values = values / 257.0
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """``pixels`` turned as EXIF asks, contiguous and writable; copied only if need be."""
    turn = _UPRIGHT.get(orientation)
    upright: Pixels = np.require(pixels if turn is None else turn(pixels), np.uint8, ["C", "W"])
    return upright


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 .. 8; 1 where there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODER_FAULTS:
        return 1
    return value if isinstance(value, int) else 1


def _said(fault: BaseException) -> str:
    """A decoder's complaint, short enough for a table."""
    return (str(fault) or type(fault).__name__)[:120]
