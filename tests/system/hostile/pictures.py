"""Files that a task may call a picture: a line each, the name, what makes its bytes, and words of the refusal."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from miner.media.pictures import clean_image
from tests.system.hostile.cases import ANY, Bench, Case
from tests.system.hostile.forge import (
    bmp_sized,
    chunk,
    encoded,
    garbled,
    gif,
    jpeg,
    jpeg_sized,
    noise,
    oriented,
    png,
    scans,
    segment,
    tiff,
    tiff_sized,
    webp_frames,
    webp_sized,
    with_text,
    zeros,
)

MAX_PIXELS = 4_000_000
PAYLOADS = (b"<script", b"<?php", b"PK\x03\x04", b"%PDF", b"secret")
"""What must not be found in what comes out."""


NONE_OF, LARGE, BROKEN, PARTS = "unsupported format", "pixels.*; at most", "file is broken", "too many parts"
CUT = "cut off"
LARGE_OR_BROKEN = f"{LARGE}|{BROKEN}"
GREY = noise("L").convert("RGB")

ROWS = [
    # other things
    Case("nothing", lambda: b"", NONE_OF),
    Case("one byte", lambda: b"\x89", NONE_OF),
    Case("text", lambda: b"hello", NONE_OF),
    Case("HTML", lambda: b"<!doctype html><script>alert(1)</script>", NONE_OF),
    Case("SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', NONE_OF),
    Case(
        "XML with an external entity", lambda: b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://127.0.0.1/">', NONE_OF
    ),
    Case("JSON", lambda: b'{"image": true}', NONE_OF),
    Case("PDF", lambda: b"%PDF-1.7\n%\xe2\xe3", NONE_OF),
    Case("PostScript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NONE_OF),
    Case("ZIP", lambda: b"PK\x03\x04" + bytes(64), NONE_OF),
    Case("gzip of a picture", lambda: b"\x1f\x8b" + zlib.compress(encoded(noise(), "PNG")), NONE_OF),
    Case("MP4", lambda: b"\x00\x00\x00\x20ftypisom" + bytes(64), NONE_OF),
    Case("AVIF of nothing", lambda: b"\x00\x00\x00\x20ftypavif" + bytes(64), BROKEN),
    Case("JPEG 2000", lambda: encoded(noise(), "JPEG2000"), NONE_OF),
    Case("PPM", lambda: encoded(noise(), "PPM"), NONE_OF),
    Case("TGA", lambda: encoded(noise(), "TGA"), NONE_OF),
    Case("ICO", lambda: encoded(noise(), "ICO"), NONE_OF),
    Case("PCX", lambda: encoded(noise(), "PCX"), NONE_OF),
    Case("Photoshop", lambda: b"8BPS\0\1" + bytes(64), NONE_OF),
    Case("FITS", lambda: b"SIMPLE  =                    T", NONE_OF),
    Case("BigTIFF", lambda: b"II+\0\x08\0\0\0" + bytes(64), NONE_OF),
    Case("AVI", lambda: b"RIFF\x10\0\0\0AVI LIST", NONE_OF),
    Case("a picture behind a blank", lambda: b" " + encoded(noise(), "PNG"), NONE_OF),
    Case("PNG with its line ends turned", lambda: encoded(noise(), "PNG").replace(b"\r\n", b"\n", 1), NONE_OF),
    # beginnings without an end
    *(
        Case(f"{kind} and no more", lambda magic=magic: magic, BROKEN)
        for kind, magic in (
            ("PNG", b"\x89PNG\r\n\x1a\n"),
            ("JPEG", b"\xff\xd8\xff"),
            ("GIF", b"GIF89a"),
            ("WebP", b"RIFF\0\0\0\0WEBP"),
            ("BMP", b"BM"),
            ("TIFF", b"II*\0"),
            ("TIFF of the other order", b"MM\0*"),
        )
    ),
    *(
        Case(f"half a {kind}", lambda kind=kind: encoded(noise(), kind)[: len(encoded(noise(), kind)) // 2], CUT)
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
    ),
    *(
        Case(f"zeros behind the start of a {kind}", lambda kind=kind: encoded(noise(), kind)[:40] + bytes(4000), ANY)
        for kind in ("PNG", "JPEG", "WEBP", "TIFF")
    ),
    Case(
        "PNG with a wrong checksum",
        lambda: encoded(noise(), "PNG").replace(b"IHDR\0\0\0\x28", b"IHDR\0\0\0\x29"),
        BROKEN,
    ),
    Case("PNG without data", lambda: png(packed=b""), BROKEN),
    Case("PNG with a chunk of 2 GB", lambda: png(struct.pack(">I4s", 0x7FFFFFFF, b"tEXt")), BROKEN),
    Case("PNG with a negative chunk", lambda: png(struct.pack(">I4s", 0xFFFFFFFF, b"tEXt")), BROKEN),
    Case("PNG with a chunk of no letters", lambda: png(chunk(b"\0\1\2\3", b"")), BROKEN),
    Case("PNG with a short header", lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0") + chunk(b"IEND", b""), BROKEN),
    Case("PNG of no known color", lambda: png(color=5), BROKEN),
    Case("PNG with a short palette color", lambda: png(chunk(b"tRNS", b"\0")), BROKEN),
    Case(
        "animated PNG with a frame outside",
        lambda: png(
            chunk(b"acTL", struct.pack(">II", 2, 0)),
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 4000, 4000, 0, 0, 1, 1, 0, 0)),
        ),
        None,
    ),
    Case("JPEG without a scan", lambda: jpeg()[:60] + b"\xff\xd9", BROKEN),
    Case("JPEG with a segment past the end", lambda: jpeg(b"\xff\xe5\xff\xff"), BROKEN),
    Case("GIF without an image", lambda: gif()[:13] + b";", BROKEN),
    Case("TIFF that begins past its end", lambda: b"II*\0" + struct.pack("<I", 1 << 30), BROKEN),
    Case("TIFF without tags", lambda: tiff(), BROKEN),
    Case(
        "TIFF of an unknown compression",
        lambda: tiff_sized(40, 40).replace(struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 31337)),
        BROKEN,
    ),
    Case("BMP of 7 bits", lambda: bmp_sized(40, 40, bits=7), BROKEN),
    # too large, by their headers
    Case("PNG of 10^9 pixels", lambda: png(width=31623, height=31623), LARGE),
    Case("PNG of 10^9 pixels in one row", lambda: png(width=10**9, height=1), LARGE),
    Case("PNG of the largest size", lambda: png(width=2**31 - 1, height=2**31 - 1), LARGE_OR_BROKEN),
    Case("PNG of one bit and 10^9 pixels", lambda: png(width=31623, height=31623, depth=1, color=0), LARGE),
    Case("PNG without width", lambda: png(width=0), BROKEN),
    Case("PNG just above the limit", lambda: png(width=2001, height=2000), LARGE),
    Case("PNG of 17000 by 1", lambda: png(width=17000, height=1), LARGE),
    Case("JPEG of 65500 by 65500", lambda: jpeg_sized(65500, 65500), LARGE_OR_BROKEN),
    Case("JPEG of 10^9 pixels", lambda: jpeg_sized(31623, 31623), LARGE_OR_BROKEN),
    Case("GIF of 65535 by 65535", lambda: gif(size=(65535, 65535)), LARGE_OR_BROKEN),
    Case("GIF whose frame is larger than its screen", lambda: gif(frame=(60000, 60000)), LARGE_OR_BROKEN),
    Case("WebP of 16384 by 16384", lambda: webp_sized(16384, 16384), LARGE_OR_BROKEN),
    Case("WebP of 2^24 by 2^24", lambda: webp_sized(1 << 24, 1 << 24), LARGE_OR_BROKEN),
    Case("TIFF of 10^9 pixels", lambda: tiff_sized(31623, 31623), LARGE_OR_BROKEN),
    Case("TIFF of 2^32 by 2^32", lambda: tiff_sized(2**32 - 1, 2**32 - 1), LARGE_OR_BROKEN),
    Case("BMP of 10^9 pixels", lambda: bmp_sized(31623, 31623), LARGE_OR_BROKEN),
    Case("BMP of a negative width", lambda: bmp_sized(-40, 40), LARGE_OR_BROKEN),
    # bombs
    Case("PNG with 64 MB behind few pixels", lambda: png(packed=zeros(64)), None),
    Case("zTXt of 64 MB", lambda: png(chunk(b"zTXt", b"k\0\0" + zeros(64))), None),
    Case("iTXt of 64 MB", lambda: png(chunk(b"iTXt", b"k\0\1\0\0\0" + zeros(64))), None),
    Case("iCCP of 64 MB", lambda: png(chunk(b"iCCP", b"k\0\0" + zeros(64))), None),
    Case(
        "70 texts of 1 MB each",
        lambda: png(*(chunk(b"zTXt", b"%d\0\0" % n + zeros(1)[:-1]) for n in range(70))),
        None,
    ),
    Case("PNG of 100,000 texts", lambda: png(*(chunk(b"tEXt", b"%d\0" % n) for n in range(100_000))), PARTS),
    Case("JPEG of 300,000 segments", lambda: jpeg(segment(0xE5, b"") * 300_000), PARTS),
    Case("JPEG of 300,000 bytes of junk", lambda: jpeg(segment(0xE5, b"") + b"\0" * 300_000), PARTS),
    Case("JPEG of 16 MB of EXIF", lambda: jpeg(segment(0xE1, b"Exif\0\0" + bytes(65500)) * 256), PARTS),
    Case("JPEG of 500 scans", lambda: scans(500), "too many scans"),
    Case("GIF of 10,000 pieces of comment", lambda: gif(b"!\xfe" + (b"\xff" + b"x" * 255) * 10_000 + b"\0"), PARTS),
    Case("GIF of 100,000 extensions", lambda: gif(b"!\x01\x00" * 100_000), PARTS),
    Case(
        "GIF of 2000 frames",
        lambda: encoded(noise("P"), "GIF", save_all=True, append_images=[noise("P").rotate(90), noise("P")] * 100),
        None,
    ),
    Case("WebP of 100,000 chunks", lambda: encoded(noise(), "WEBP") + b"ABCD\0\0\0\0" * 100_000, PARTS),
    Case("WebP of 20,000 frames", lambda: webp_frames(20_000), None),
    Case("TIFF of 60,000 tags", lambda: tiff(*((number, 3, 1, 1) for number in range(60_000))), PARTS),
    Case(
        "TIFF whose tags all hold the whole file",
        lambda: tiff(*((number, 1, 30_000, 8) for number in range(1000, 1100)), following=bytes(40_000)),
        BROKEN,  # none of them matters, and there are no pixels
    ),
    Case("TIFF with 10^9 strips", lambda: tiff((273, 4, 10**9, 8)), "tags that are too large"),
    Case("TIFF with tags in a circle", lambda: encoded(noise(), "TIFF") + bytes(8), None),
    Case(
        "TIFF with progressive JPEG inside",
        lambda: tiff(
            (256, 4, 1, 40), (257, 4, 1, 40), (259, 3, 1, 7), (273, 4, 1, 74), (279, 4, 1, 1000), following=scans(2)
        ),
        "progressive JPEG inside",
    ),
    Case("run-length encoded BMP", lambda: bmp_sized(40, 40, compression=1, bits=8), "run-length encoded"),
    # more than one thing at once: what is no picture has to be gone
    Case("PNG and ZIP", lambda: encoded(noise(), "PNG") + b"PK\x03\x04" + bytes(64), None),
    Case("PNG with a page in its text", lambda: with_text(("Comment", "<script>alert(1)</script>")), None),
    Case("PNG with a packed prompt", lambda: with_text(("prompt", "secret " * 99), packed=True), None),
    Case(
        "PNG with a text named like a method",
        lambda: with_text(("transparency", "secret"), ("exif", "secret"), ("dpi", "x")),
        ANY,
    ),
    Case("PNG with EXIF as hex text", lambda: with_text(("Raw profile type exif", "\nexif\n 8\n736563726574")), None),
    Case("JPEG and PHP", lambda: jpeg(segment(0xFE, b"<?php system($_GET['c']); ?>")), None),
    Case("JPEG and PDF", lambda: jpeg(segment(0xFE, b"%PDF-1.7")) + b"%PDF-1.7\n", None),
    Case("GIF and JavaScript", lambda: gif(b"!\xfe\x10<script>alert(1)\0") + b"*/=1;<script>alert(1)</script>", None),
    Case("BMP and a page", lambda: encoded(noise(), "BMP") + b"<script>", None),
    Case("WebP and ZIP", lambda: encoded(noise(), "WEBP") + b"PK\x03\x04" + bytes(4), None),
    Case("TIFF with a place in it", lambda: oriented(1, "TIFF"), None),
    Case("JPEG within a PNG's name", lambda: jpeg(), None),
    Case(
        "two JPEGs in one (MPO)",
        lambda: encoded(noise(), "MPO", save_all=True, append_images=[GREY]),
        None,
    ),
    Case("JPEG with broken MPO", lambda: jpeg(segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff")), None),
    Case("JPEG with broken EXIF", lambda: jpeg(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")), None),
    Case(
        "JPEG with EXIF in a circle",
        lambda: jpeg(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0")),
        None,
    ),
    Case("JPEG of an impossible orientation", lambda: oriented(99), None),
    Case("PNG with a broken profile", lambda: png(chunk(b"iCCP", b"x\0\0garbage")), None),
    Case("animated PNG", lambda: encoded(noise(), "PNG", save_all=True, append_images=[GREY]), None),
    *(
        Case(f"garbled {kind} {seed}", lambda kind=kind, seed=seed: garbled(encoded(noise(), kind), seed), ANY)
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
        for seed in (1, 2, 3)
    ),
]


def run(_bench: Bench, case: Case) -> None:
    png_bytes, (width, height) = clean_image(case.given(), max_pixels=MAX_PIXELS)
    with Image.open(io.BytesIO(png_bytes), formats=("PNG",)) as picture:
        picture.load()
        assert (picture.mode, picture.size, picture.info) == ("RGB", (width, height), {})
    assert [payload for payload in PAYLOADS if payload in png_bytes] == []
