"""Untrusted pictures, decoded and encoded anew.

Promises: six formats are accepted, judged by the first bytes; the parts of a file are counted before Pillow sees it,
and its size in pixels is judged from the header before it is decoded; the result holds the upright pixels of the first
frame and nothing else.

Never: decodes two pictures at once, which bounds memory.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from miner.task.errors import JobFault

MAX_SIDE = 16384  # pixels; about WebP's own limit, and past any model's

# Imported to register them, so that Image.open() does not import all the others.
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
_MAGIC = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
}

# What Pillow 11 to 13 raise for malformed data. SyntaxError means a broken header; the other builtin errors escape from
# its parsers and codecs; MemoryError comes from a decoder that was given an absurd size.
BROKEN = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,  # UnicodeError too
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    MemoryError,
    BufferError,
    RuntimeError,  # NotImplementedError and RecursionError too
    SystemError,
    struct.error,
    zlib.error,
)

# EXIF's orientation (TIFF 6.0, tag 274), and how to turn such a picture upright.
_ORIENTATION = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_one_at_a_time = threading.Lock()
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks on untrusted files go to stderr


class _Unfit(Exception):
    """Why a picture is refused, as a clause for the consumer."""


def clean_image(data: bytes, *, max_pixels: int, name: str = "image") -> tuple[bytes, tuple[int, int]]:
    """A PNG (RGB, 8 bits) of the picture's first frame, and its width and height in pixels. Blocks while decoding.

    Transparent parts become white, as in a viewer; ComfyUI would show the hidden color. Color profiles are dropped,
    not applied. Raises JobFault, with `name` (the parameter) before the reason.
    """
    try:
        kind = next((kind for kind, magic in _MAGIC.items() if magic.match(data)), None)
        if kind is None:
            raise _Unfit(f"unsupported format; use {', '.join(_MAGIC)}")
        _count_parts(data, kind)
        with alone():
            picture = _decode(data, kind, max_pixels)
            png = io.BytesIO()
            picture.save(png, "PNG", compress_level=1)
            return png.getvalue(), picture.size
    except _Unfit as unfit:
        raise JobFault(f"{name}: {unfit}") from None
    except Image.DecompressionBombError:
        raise JobFault(f"{name}: it has too many pixels; the limit is {max_pixels}") from None
    except BROKEN:
        raise JobFault(f"{name}: the {kind} file is broken") from None


@contextmanager
def alone(*, max_pixels: int | None = None) -> Iterator[None]:
    """One thread at a time, without Pillow's warnings: oddities do not matter, and sizes are judged elsewhere.

    `max_pixels` replaces Pillow's own limit; the caller has to judge the size.
    """
    with _one_at_a_time, warnings.catch_warnings():  # filters and limit are the whole process's
        warnings.simplefilter("ignore")
        usual = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels or usual
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _decode(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=(kind,)) as opened:
        width, height = opened.size
        if max(width, height) > MAX_SIDE or width * height > max_pixels:
            raise _Unfit(f"it has {width}x{height} pixels; the limit is {max_pixels}, and {MAX_SIDE} per side")
        opened.load()
        picture = in_rgb(opened)
        upright = _UPRIGHT.get(_orientation(opened))
    return picture if upright is None else picture.transpose(upright)


def in_rgb(picture: Image.Image) -> Image.Image:
    """A new picture of the same pixels, without Pillow's `info`."""
    if picture.mode == "F":
        raise _Unfit("its pixels are floating-point numbers")
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 and not scale
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
        picture.info.clear()  # its transparent color is one of 16 bits
    clean = Image.new("RGB", picture.size, "white")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        clean.paste(layer, mask=layer)
    else:
        clean.paste(picture.convert("RGB"))
    return clean


def _orientation(picture: Image.Image) -> int:
    """EXIF's orientation; 1 (upright) if EXIF is missing or broken, since the pixels are usable anyway."""
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except BROKEN:
        return 1


# ---- parts: each costs Pillow's parsers microseconds and up to a kilobyte, and 50 MB can hold millions of them -------


def _count_parts(data: bytes, kind: str) -> None:
    """Raise _Unfit for a file that would keep a parser busy, or is truncated."""
    walk, most = _PARTS[kind]
    try:
        for count, _ in enumerate(walk(data), 1):
            if count > most:
                raise _Unfit(f"the {kind} file has too many parts")
    except (struct.error, IndexError):
        raise _Unfit(f"the {kind} file is broken") from None
    if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS:  # each is a pass over the whole picture
        raise _Unfit("the JPEG file has too many scans")


def _png_chunks(data: bytes) -> Iterator[None]:
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        (length,) = struct.unpack_from(">I", data, at)
        at += 12 + length
        yield


def _jpeg_segments(data: bytes) -> Iterator[None]:
    """Up to the first scan; bytes in gaps count one by one, as a parser reads them."""
    at = 2
    while (marker := data[at + 1]) != 0xDA or data[at] != 0xFF:
        if data[at] != 0xFF or marker in (0x00, 0xFF):
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # these stand alone
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
        yield


def _gif_blocks(data: bytes) -> Iterator[None]:
    """Up to the first image."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at] != ord(","):
        if data[at] == ord("!"):
            at += 2
            while size := data[at]:
                at += 1 + size
                yield
        at += 1
        yield


def _bmp_header(data: bytes) -> Iterator[None]:
    header, compression = struct.unpack_from("<I12xI", data, 14)
    if header >= 40 and compression in (1, 2):
        raise _Unfit("it is a run-length encoded BMP")  # Pillow unpacks those in Python
    yield


def _tiff_tags(data: bytes) -> Iterator[None]:
    """Of the first image. All tags together fit into the file; tables of numbers become Python objects."""
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (tags,) = struct.unpack_from(f"{order}H", data, at)
    octets = numbers = 0
    for entry in range(at + 2, at + 2 + 12 * tags, 12):
        tag, form, count, value = struct.unpack_from(f"{order}HHI4s", data, entry)
        size = _TIFF_SIZES.get(form, 1)
        octets += count * size
        numbers += count if size > 1 else 0
        if octets > len(data) or numbers > _MAX_TIFF_NUMBERS:
            raise _Unfit("the TIFF file has tags that are too large")
        if tag == _COMPRESSION and not _TIFF_JPEG.isdisjoint(value) and b"\xff\xc2" in data:
            raise _Unfit("it is a TIFF file with progressive JPEG inside")  # its scans cannot be counted
        yield


def _webp_chunks(data: bytes) -> Iterator[None]:
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + length % 2
        yield


_MAX_SCANS = 100  # a usual progressive JPEG has about ten
_COMPRESSION = 259  # TIFF's tag, and what in it means JPEG
_TIFF_JPEG = frozenset({6, 7})
_MAX_TIFF_NUMBERS = 500_000  # strips or tiles, above all
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes of one number
_PARTS: dict[str, tuple[Callable[[bytes], Iterator[None]], int]] = {
    "PNG": (_png_chunks, 65_536),  # 50 MB in the 8 KB chunks of libpng are 6,400
    "JPEG": (_jpeg_segments, 256),  # of 64 KB each at most
    "WEBP": (_webp_chunks, 65_536),
    "GIF": (_gif_blocks, 4096),
    "BMP": (_bmp_header, 1),
    "TIFF": (_tiff_tags, 4096),
}
