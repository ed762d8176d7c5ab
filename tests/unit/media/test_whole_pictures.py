"""Honest pictures, odd ones too: each comes out as a plain reader shows it, or is refused in words that say what is
missing."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from miner.media.containers import rebuild
from miner.media.containers.pixels import MAX_PROFILE
from miner.media.pictures import clean_image
from miner.task.errors import JobFault

WIDTH, HEIGHT = 61, 47
SECRET = b"a secret garden"
MAX_PIXELS = 4_194_304


def card(mode: str = "RGB", *, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Smooth enough for lossy formats, and different in every corner."""
    down, across = np.mgrid[0:height, 0:width]
    planes = (across * 255 // max(width - 1, 1), down * 255 // max(height - 1, 1), (across + 2 * down) % 256)
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)).convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    card(mode).save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[274] = orientation
    made[0x010E] = SECRET.decode()
    return made


def chunk(kind: bytes, data: bytes, *, wrong: bool = False) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def with_chunk(*chunks: bytes) -> bytes:
    """A PNG with these behind its header."""
    data = encoded("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def sixteen_bits(color: int, channels: int) -> bytes:
    """A PNG of 16 bits a sample."""
    values = (np.asarray(card("RGBA"))[..., :channels].astype(np.uint32) * 257).astype(">u2")
    if channels in (2, 4):
        values[..., -1] = 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, color, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def interlaced() -> bytes:
    """A PNG in the seven passes of Adam7."""
    pixels, packed = np.asarray(card()), b""
    for x, y, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        packed += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::right])
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(packed)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def tiled(order: str = "<", *, planes: bool = False) -> bytes:
    """A TIFF of 16 x 16 tiles."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:HEIGHT, :WIDTH] = np.asarray(card())
    layers = [pixels[..., band : band + 1] for band in range(3)] if planes else [pixels]
    tiles = [
        layer[y : y + 16, x : x + 16].tobytes() for layer in layers for y in range(0, 48, 16) for x in range(0, 64, 16)
    ]
    count, values = len(tiles), 8 + 2 + 12 * 11 + 4
    offsets = [values + 6 + 8 * len(tiles) + sum(map(len, tiles[:number])) for number in range(count)]
    tags = (
        (256, 4, 1, WIDTH),
        (257, 4, 1, HEIGHT),
        (258, 3, 3, values),
        (259, 4, 1, 1),
        (262, 4, 1, 2),
        (277, 4, 1, 3),
        (284, 4, 1, 2 if planes else 1),
        (322, 4, 1, 16),
        (323, 4, 1, 16),
        (324, 4, count, values + 6),
        (325, 4, count, values + 6 + 4 * count),
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    tables = struct.pack(f"{order}HHH{count}I{count}I", 8, 8, 8, *offsets, *map(len, tiles))
    return head + entries + bytes(4) + tables + b"".join(tiles)


def animation(kind: str) -> bytes:
    return encoded(kind, save_all=True, append_images=[card().rotate(180)], duration=80)


WHOLE: dict[str, Callable[[], bytes]] = {
    **{
        f"{kind}, orientation {value}": lambda kind=kind, value=value: encoded(kind, exif=exif(value))
        for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
        for value in (1, 2, 3, 4, 5, 6, 7, 8)
    },
    **{
        f"{kind}, {mode}": lambda kind=kind, mode=mode: encoded(kind, mode)
        for kind, modes in {
            "PNG": ("RGB", "L", "P", "1", "RGBA"),
            "JPEG": ("RGB", "L", "CMYK"),
            "GIF": ("P", "L", "1"),
            "BMP": ("RGB", "L", "P", "1", "RGBA"),
            "TIFF": ("RGB", "L", "P", "1", "CMYK", "RGBA", "LAB"),
            "WEBP": ("RGB", "RGBA"),
            "AVIF": ("RGB", "RGBA"),
        }.items()
        for mode in modes
    },
    **{
        f"TIFF, {packed}": lambda packed=packed: encoded("TIFF", compression=packed)
        for packed in ("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg", "lzma")
    },
    **{
        f"TIFF of faxes, {packed}": lambda packed=packed: encoded("TIFF", "1", compression=packed)
        for packed in ("group3", "group4", "tiff_ccitt")
    },
    **{
        f"JPEG, {options}": lambda options=options: encoded("JPEG", **options)
        for options in (
            {"progressive": True},
            {"subsampling": 0},
            {"subsampling": 1},
            {"restart_marker_blocks": 3},
            {"optimize": True},
            {"keep_rgb": True},
        )
    },
    **{f"an animated {kind}": lambda kind=kind: animation(kind) for kind in ("GIF", "PNG", "WEBP", "AVIF")},
    "PNG, interlaced": interlaced,
    "PNG of 16 bits, grey": lambda: sixteen_bits(0, 1),
    "PNG of 16 bits, colors": lambda: sixteen_bits(2, 3),
    "PNG of 16 bits, colors and alpha": lambda: sixteen_bits(6, 4),
    "GIF, interlaced": lambda: encoded("GIF", "P", interlace=1),
    "WebP without loss": lambda: encoded("WEBP", lossless=True),
    "MPO": lambda: encoded("MPO", save_all=True, append_images=[card().rotate(180)]),
    "TIFF in tiles": tiled,
    "TIFF in tiles, of the other order": lambda: tiled(">"),
    "TIFF in tiles, in planes": lambda: tiled(planes=True),
    "TIFF in strips of 5 rows": lambda: encoded("TIFF", tiffinfo={278: 5}),
    "TIFF of two pages": lambda: encoded("TIFF", save_all=True, append_images=[card().rotate(180)]),
    "JPEG with a motion photo behind it": lambda: (
        encoded("JPEG") + b"\0\0\0\x18ftypmp42" + b"\xff\xd9\xff\xd8\0" * 200_000
    ),
    "JPEG with fill bytes": lambda: encoded("JPEG").replace(b"\xff\xdb", b"\xff" * 99 + b"\xff\xdb"),
    "PNG with a wrong checksum of a text": lambda: with_chunk(chunk(b"tEXt", b"k\0" + SECRET, wrong=True)),
    "PNG with a wrong checksum of its pixels": lambda: re.sub(
        rb"....(?=\0\0\0\0IEND)", b"\1\2\3\4", encoded("PNG"), flags=re.S
    ),
    "PNG with a text of 2 MB": lambda: with_chunk(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))),
    "PNG with a broken text": lambda: with_chunk(chunk(b"iTXt", b"k\0\1\0\0\0" + b"nonsense")),
    "PNG with a profile that breaks": lambda: with_chunk(chunk(b"iCCP", b"k\0\0" + b"nonsense")),
    "PNG with a profile that is too large": lambda: with_chunk(
        chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(MAX_PROFILE + 1)))
    ),
    "PNG with a gap behind its end": lambda: encoded("PNG") + b"\0" * 99,
    "PNG without its end": lambda: encoded("PNG")[:-12],
    "PNG that breaks off in its end": lambda: encoded("PNG")[:-5],
    "JPEG without its end": lambda: encoded("JPEG")[:-2],
    "progressive JPEG without its end": lambda: encoded("JPEG", progressive=True)[:-2],
    "GIF without its end": lambda: encoded("GIF", "P")[:-1],
    "1 x 1": lambda: png_of(1, 1),
    "5 x 1000": lambda: png_of(5, 1000),
}


def png_of(width: int, height: int) -> bytes:
    out = io.BytesIO()
    card(width=width, height=height).save(out, "PNG")
    return out.getvalue()


def plainly(data: bytes) -> np.ndarray:
    """As a reader that follows no strictness shows it."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    usual = PngImagePlugin.MAX_TEXT_CHUNK
    PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        PngImagePlugin.MAX_TEXT_CHUNK = usual
    if picture.mode.startswith("I"):
        return np.repeat(np.asarray(picture)[..., None] // 257, 3, axis=-1)
    return np.asarray(picture.convert("RGB"))


def cleaned(data: bytes) -> np.ndarray:
    png, size = clean_image(data, max_pixels=MAX_PIXELS)
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.size) == ("PNG", size)
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_picture_comes_out_as_a_plain_reader_shows_it(name: str) -> None:
    data = WHOLE[name]()
    plain, clean = plainly(data), cleaned(data)
    assert plain.shape == clean.shape
    assert np.abs(plain.astype(int) - clean.astype(int)).max() <= 1


def test_a_webp_with_a_wrong_length_is_taken() -> None:
    data = encoded("WEBP")
    assert np.array_equal(cleaned(data[:4] + b"\xff\xff\xff\x7f" + data[8:]), cleaned(data))


def test_a_bmp_whose_fourth_byte_was_left_alone_is_opaque() -> None:
    picture = card("RGBA")
    picture.putalpha(0)
    out = io.BytesIO()
    picture.save(out, "BMP")
    assert np.array_equal(cleaned(out.getvalue()), np.asarray(card()))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("left", [0.9, 0.6])
def test_a_picture_that_is_cut_off_is_refused_with_the_rows_that_are_missing(kind: str, left: float) -> None:
    values = np.random.default_rng(1).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    data = out.getvalue()
    with pytest.raises(JobFault, match=r"image: the picture is cut off: \d+ of 400 rows are missing") as caught:
        clean_image(data[: int(len(data) * left)], max_pixels=MAX_PIXELS)
    missing = int(re.findall(r"\d+", caught.value.message)[0])
    assert 400 * (1 - left) - 20 <= missing <= 400 * (1 - left) + 30


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_of_other_formats_it_is_refused_as_cut_off(kind: str) -> None:
    data = encoded(kind)
    with pytest.raises(JobFault, match="image: the picture is cut off"):
        clean_image(data[: len(data) * 2 // 3], max_pixels=MAX_PIXELS)


def test_a_progressive_jpeg_without_its_last_scans_is_cut_off() -> None:
    data = encoded("JPEG", progressive=True)
    with pytest.raises(JobFault, match="the picture is cut off: its last scans are missing"):
        clean_image(data[: len(data) // 2], max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(
    "data",
    [
        encoded("PNG", exif=exif(6)),
        with_chunk(chunk(b"tEXt", b"k\0" + SECRET), chunk(b"prVt", SECRET), chunk(b"pHYs", SECRET)),
        encoded("JPEG", exif=exif(6), comment=SECRET, xmp=SECRET) + SECRET,
        encoded("WEBP", exif=exif(6), xmp=SECRET) + SECRET,
        encoded("GIF", "P", comment=SECRET) + SECRET,
        encoded("BMP") + SECRET,
        encoded("TIFF", exif=exif(6), tiffinfo={270: SECRET.decode(), 700: SECRET}) + SECRET,
    ],
    ids=["PNG, EXIF", "PNG, texts", "JPEG", "WebP", "GIF", "BMP", "TIFF"],
)
def test_what_is_no_pixel_never_reaches_pillow(data: bytes) -> None:
    assert SECRET in data
    assert SECRET not in rebuild(data).data
