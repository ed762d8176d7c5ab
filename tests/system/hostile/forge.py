"""Pictures of one's own making: well-formed, nearly so, and not at all."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, PngImagePlugin


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@cache
def noise(mode: str = "RGB", side: int = 40) -> Image.Image:
    values = np.random.default_rng(7).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    *chunks: bytes, width: int = 40, height: int = 40, depth: int = 8, color: int = 2, packed: bytes | None = None
) -> bytes:
    """A PNG of one's own making; `packed` is its data, black where there is none."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(bytes((1 + 3 * 40) * 40)) if packed is None else packed
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")))


@cache
def zeros(megabytes: int) -> bytes:
    """So many zeros in a thousandth of the place."""
    squeeze = zlib.compressobj(1)
    block = bytes(1 << 20)
    return b"".join(squeeze.compress(block) for _ in range(megabytes)) + squeeze.flush()


def jpeg(*segments: bytes, picture: Image.Image | None = None, **options: object) -> bytes:
    data = encoded(picture or noise(), "JPEG", **options)
    return data[:2] + b"".join(segments) + data[2:]


def segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


def jpeg_sized(width: int, height: int) -> bytes:
    """A JPEG whose header lies about its size."""
    data = jpeg()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def scans(count: int) -> bytes:
    """A progressive JPEG with one of its scans said over and over."""
    data = jpeg(progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[-2:]


def gif(*extensions: bytes, size: tuple[int, int] | None = None, frame: tuple[int, int] | None = None) -> bytes:
    data = encoded(noise("P"), "GIF")
    at = 13 + (3 << (data[10] & 7) + 1)
    body = data[at:]
    if frame:
        comma = body.index(b",")
        body = body[: comma + 5] + struct.pack("<HH", *frame) + body[comma + 9 :]
    screen = struct.pack("<HH", *size) if size else data[6:10]
    return data[:6] + screen + data[10:at] + b"".join(extensions) + body


def tiff(*tags: tuple[int, int, int, int], following: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of nothing but tags: tag, type, count, value."""
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4) + following


def tiff_sized(width: int, height: int) -> bytes:
    return tiff(
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, width),
    )


def bmp_sized(width: int, height: int, *, compression: int = 0, bits: int = 24) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + 64, 0, 0, 54) + header + bytes(64)


def webp_sized(width: int, height: int) -> bytes:
    """A lossy WebP in an extended file whose canvas is as large as it says."""
    inner = encoded(noise(), "WEBP")[12:]
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_frames(count: int) -> bytes:
    data = encoded(noise(), "WEBP", save_all=True, append_images=[noise("L").convert("RGB")])
    at = data.index(b"ANMF")
    frame = data[at : at + 8 + struct.unpack_from("<I", data, at + 4)[0]]
    body = data[8:at] + frame * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def garbled(data: bytes, seed: int) -> bytes:
    """The same with two per cent of its bytes behind the first 16 replaced."""
    chance = random.Random(seed)
    body = bytearray(data)
    for at in chance.sample(range(16, len(body)), len(body) // 50):
        body[at] = chance.randrange(256)
    return bytes(body)


def with_text(*pairs: tuple[str, str], packed: bool = False) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in pairs:
        info.add_text(key, value, zip=packed)
    return encoded(noise(), "PNG", pnginfo=info)


def oriented(value: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[274] = value
    exif[0x010E] = "secret place"
    return encoded(noise(), kind, exif=exif)
