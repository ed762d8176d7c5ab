"""Small files that once cost minutes or gigabytes, and their neighbors: a line each, of every format and of every field
that has a length, a count or an offset."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.system.hostile.forge import bmp_sized, chunk, encoded, gif, jpeg, noise, png, scans, segment, zeros

MEGAPIXELS = 4_194_304  # as the upscaler takes them
_SUB, _EXIF, _GPS, _INTEROP = 330, 0x8769, 0x8825, 0xA005


def directory(*tags: tuple[int, int, int, bytes], start: int = 8, order: str = "<") -> bytes:
    """A TIFF from its header on: tag, type, count, value; what has more than four bytes goes behind."""
    at = start + 2 + 12 * len(tags) + 4
    entries, values = [], []
    for tag, form, count, value in tags:
        if len(value) > 4:
            entries.append(struct.pack(f"{order}HHII", tag, form, count, at))
            values.append(value)
            at += len(value)
        else:
            entries.append(struct.pack(f"{order}HHI4s", tag, form, count, value.ljust(4, b"\0")))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return b"".join((head, struct.pack(f"{order}H", len(tags)), *entries, bytes(4), *values))


def long(value: int) -> bytes:
    return struct.pack("<I", value)


def many(start: int, *, tags: int = 1, count: int = 5_000_000) -> bytes:
    """A directory at `start` whose tags all hold the same fractions; these many take Pillow 11 s."""
    entries = b"".join(struct.pack("<HHII", 1000 + tag, 5, count, start + 6 + 12 * tags) for tag in range(tags))
    return struct.pack("<H", tags) + entries + bytes(4) + struct.pack("<II", 7, 3) * count


def rationals(pointer: int, *, tags: int = 1, count: int = 5_000_000) -> bytes:
    """EXIF with such a directory behind `pointer`."""
    first = directory((274, 3, 1, long(1)), (pointer, 4, 1, long(38)))
    return first + many(len(first), tags=tags, count=count)


def with_pixels(*tags: tuple[int, int, int, bytes], width: int = 40, height: int = 40, behind: bytes = b"") -> bytes:
    """A TIFF of grey zeros, uncompressed in one strip, with more tags."""
    own = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height}
    given = {tag for tag, *_ in tags}
    mine = [(tag, 4, 1, long(value)) for tag, value in own.items() if tag not in given]
    file = directory(*sorted((*mine, *tags)))
    return file + behind + bytes(max(width * height + 8 - len(file), 0))


def tiff_with(pointer: int, *, tags: int = 1, count: int = 5_000_000) -> bytes:
    """A TIFF with such a directory behind `pointer`."""
    return with_pixels((pointer, 4, 1, long(4096))).ljust(4096, b"\0") + many(4096, tags=tags, count=count)


def tiles(across: int, down: int, *, count: int, width: int, height: int, compression: int = 8) -> bytes:
    """A TIFF whose tiles all point at the same bytes."""
    packed = zeros(1) if compression == 8 else bytes(1 << 16)
    many = struct.pack(f"<{count}I", *[8 + 2 + 12 * 10 + 4] * count)
    file = directory(
        (256, 4, 1, long(width)),
        (257, 4, 1, long(height)),
        (258, 3, 1, long(8)),
        (259, 3, 1, long(compression)),
        (262, 3, 1, long(1)),
        (277, 3, 1, long(1)),
        (322, 4, 1, long(across)),
        (323, 4, 1, long(down)),
        (324, 4, count, many),
        (325, 4, count, struct.pack(f"<{count}I", *[len(packed)] * count)),
    )
    return file + packed


def strips(count: int, *, height: int) -> bytes:
    one = struct.pack(f"<{count}I", *[8] * count)
    return with_pixels((273, 4, count, one), (278, 4, 1, long(1)), (279, 4, count, one), width=4000, height=height)


def webp(*chunks: tuple[bytes, bytes], flags: int = 0) -> bytes:
    inner = encoded(noise(), "WEBP")[12:]
    canvas = struct.pack("<I", 39)[:3] * 2
    parts = [(b"VP8X", bytes((flags, 0, 0, 0)) + canvas), *chunks]
    body = b"WEBP" + b"".join(
        struct.pack("<4sI", kind, len(data)) + data + bytes(len(data) % 2) for kind, data in parts
    )
    return b"RIFF" + struct.pack("<I", len(body + inner)) + body + inner


def broken_stream(megabytes: int) -> bytes:
    """Zeros in a stream that breaks at its end."""
    return zeros(megabytes)[:-4] + b"\xff\xff\xff\xff"


def progressive(count: int) -> bytes:
    """A large progressive JPEG with `count` scans more."""
    data = encoded(Image.new("RGB", (2048, 2048)), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[-2:]


def avif_with(exif: bytes) -> bytes:
    room = Image.Exif()  # Pillow would read the real one, for a minute
    room[270] = "x" * len(exif)
    data = encoded(noise(), "AVIF", exif=room)
    at = data.index(room.tobytes()[6:14])
    return data[:at] + exif + data[at + len(exif) :]


def interlaced(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 1)
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", zeros(4)), chunk(b"IEND", b"")))


def random_bytes(count: int) -> bytes:
    return random.Random(5).randbytes(count)


BOMBS: dict[str, Callable[[], bytes]] = {
    # the six
    "TIFF: 1,024 tiles of 16 x 6,000,000, all the same bytes": lambda: tiles(
        16, 6_000_000, count=1024, width=16_384, height=256
    ),
    "PNG: 48,000 ICC profiles": lambda: png(*[chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200_000), 9))] * 48_000),
    "PNG: texts that inflate and break": lambda: png(*[chunk(b"zTXt", b"k\0\0" + broken_stream(1))] * 10_000),
    "TIFF: EXIF of 5 million fractions": lambda: tiff_with(_EXIF),
    "PNG: EXIF of 5 million fractions": lambda: png(chunk(b"eXIf", rationals(_EXIF))),
    "WebP: GPS of 5 million fractions": lambda: webp((b"EXIF", rationals(_GPS)), flags=8),
    # PNG
    "PNG: 60,000 EXIF chunks": lambda: png(*[chunk(b"eXIf", rationals(_GPS, count=50, tags=10))] * 60_000),
    "PNG: a profile of 64 MB": lambda: png(chunk(b"iCCP", b"x\0\0" + zeros(64))),
    "PNG: suggested palettes of 48 MB": lambda: png(*[chunk(b"sPLT", bytes(8000))] * 6000),
    "PNG: 65,000 empty pieces of pixels": lambda: png(*[chunk(b"IDAT", b"")] * 65_000),
    "PNG: 100,000 pieces of pixels": lambda: png(*[chunk(b"IDAT", b"")] * 100_000),
    "PNG: 60,000 frame controls": lambda: png(
        chunk(b"acTL", struct.pack(">II", 60_000, 0)), *[chunk(b"fcTL", bytes(26))] * 60_000
    ),
    "PNG: international texts of 1 GB": lambda: png(*[chunk(b"iTXt", b"k\0\1\0\0\0" + zeros(8))] * 128),
    "PNG: one bit, interlaced, the largest size": lambda: interlaced(2048, 2048),
    "PNG: 200 MB behind few pixels": lambda: png(packed=zeros(200)),
    "PNG: palette of 100,000 colors": lambda: png(chunk(b"PLTE", bytes(300_000)), color=3),
    # JPEG
    "JPEG: 250 EXIF segments": lambda: jpeg(
        *[segment(0xE1, b"Exif\0\0" + rationals(_EXIF, count=4000, tags=60)[:65_000])] * 240
    ),
    "JPEG: a profile of 255 pieces": lambda: jpeg(
        *[segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 255)) + bytes(65_000)) for number in range(1, 240)]
    ),
    "JPEG: MPO of 60,000 pictures": lambda: jpeg(
        segment(0xE2, b"MPF\0" + directory((0xB001, 4, 1, long(60_000)), (0xB002, 7, 960_000, bytes(60_000))))
    ),
    "JPEG: Photoshop resources": lambda: jpeg(
        *[segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5400)] * 240
    ),
    "JPEG: 90 scans of 4 MP": lambda: progressive(90),
    "JPEG: 100,000 scans": lambda: scans(100_000),
    "JPEG: 50 MB of fill bytes": lambda: jpeg()[:-2] + b"\xff" * 50_000_000 + b"\xff\xd9",
    "JPEG: 50 MB of restart marks": lambda: jpeg()[:-2] + b"\xff\xd0" * 25_000_000 + b"\xff\xd9",
    "JPEG: 50 MB of stuffed bytes": lambda: jpeg()[:-2] + b"\xff\0" * 25_000_000 + b"\xff\xd9",
    "JPEG: 200 tables of 64 KB": lambda: jpeg(*[segment(0xDB, (b"\0" + b"\1" * 64) * 1000)] * 200),
    # WebP
    "WebP: 60,000 EXIF chunks": lambda: webp(*[(b"EXIF", rationals(_GPS, count=50, tags=5))] * 60_000, flags=8),
    "WebP: XMP of 40 MB": lambda: webp((b"XMP ", b"<x>" * 13_000_000), flags=4),
    "WebP: a profile of 40 MB": lambda: webp((b"ICCP", bytes(40_000_000)), flags=0x20),
    "WebP: a frame larger than its canvas": lambda: webp(
        (b"ANIM", bytes(6)), (b"ANMF", b"\0" * 6 + b"\xff" * 6 + bytes(4)), flags=2
    ),
    "WebP: pixels that are chance": lambda: webp((b"VP8L", b"\x2f\xff\xff\xff\x07" + random_bytes(8_000_000))),
    # GIF
    "GIF: 4,000 comments of 12 KB": lambda: gif((b"!\xfe" + (b"\xff" + b"x" * 255) * 48 + b"\0") * 4000),
    "GIF: blocks of one byte": lambda: gif()[:-2] + b"\1\0" * 25_000_000 + b"\0;",
    "GIF: a screen of 2048 x 2048 and no pixels": lambda: gif(size=(2048, 2048), frame=(2048, 2048)),
    # BMP
    "BMP: a palette of 2^32 colors": lambda: (
        bmp_sized(40, 40, bits=8)[:46] + struct.pack("<I", 0xFFFFFFFF) + bytes(5000)
    ),
    "BMP: a header of 40 MB": lambda: b"BM" + struct.pack("<IHHII", 0, 0, 0, 54, 40_000_000) + bytes(40_000_000),
    "BMP: run-length encoded": lambda: bmp_sized(2048, 2048, compression=1, bits=8) + b"\1\0" * 20_000_000,
    # TIFF
    "TIFF: 1,024 tiles of the same bytes": lambda: tiles(64, 64, count=1024, width=2048, height=2048),
    "TIFF: 1 tile of 2^20 x 2^20": lambda: tiles(1 << 20, 1 << 20, count=1, width=40, height=40),
    "TIFF: 200,000 strips of the same bytes": lambda: strips(16_384, height=1000),
    "TIFF: 1,000 strips of the same bytes": lambda: strips(1000, height=1000),
    "TIFF: GPS of 500 million fractions": lambda: tiff_with(_GPS, tags=100),
    "TIFF: sub-directory of 5 million fractions": lambda: tiff_with(_SUB),
    "TIFF: sub-directories in a circle": lambda: with_pixels(
        (_SUB, 4, 1000, long(8) * 1000), (_INTEROP, 4, 1, long(8))
    ),
    "TIFF: 10 million bits per sample": lambda: with_pixels((258, 3, 10_000_000, bytes(20_000_000))),
    "TIFF: color map of 10 million": lambda: with_pixels((320, 3, 10_000_000, bytes(20_000_000))),
    "TIFF: JPEG tables of 20 MB": lambda: with_pixels((347, 7, 20_000_000, bytes(20_000_000))),
    "TIFF: XMP, IPTC and Photoshop of 40 MB": lambda: with_pixels(
        *((tag, 1, 13_000_000, bytes(13_000_000)) for tag in (700, 33723, 34377))
    ),
    "TIFF: 4,000 tags of the whole file": lambda: (
        directory(*((tag, 1, 4, bytes(4)) for tag in range(4000)), start=8) + bytes(1_000_000)
    ),
    "TIFF: text of 40 MB": lambda: with_pixels((270, 2, 40_000_000, b"x" * 40_000_000)),
    "TIFF: LZMA of chance": lambda: with_pixels((259, 3, 1, long(34925)), behind=random_bytes(1_000_000)),
    "TIFF: 200 samples": lambda: with_pixels((277, 3, 1, long(200))),
    "TIFF: deflated, 16384 x 256 in one strip of 100 MB": lambda: with_pixels(
        (259, 3, 1, long(8)), (279, 4, 1, long(100_000)), width=16_384, height=256, behind=zeros(100)
    ),
    # AVIF
    "AVIF: EXIF of 5 million fractions": lambda: avif_with(rationals(_EXIF)),
    "AVIF: GPS of 5 million fractions": lambda: avif_with(rationals(_GPS)),
    "AVIF: 5,000 boxes": lambda: encoded(noise(), "AVIF") + struct.pack(">I4s", 8, b"free") * 5000,
    "AVIF: boxes in boxes": lambda: encoded(noise(), "AVIF")[:32] + struct.pack(">I4s", 4_000_000, b"moov") * 500_000,
}
