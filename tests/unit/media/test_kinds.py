"""What came in place of a picture, in words."""

from __future__ import annotations

import time

import pytest

from miner.media.kinds import ACCEPT, PICTURES, came, unsupported

CAME = [
    (b"", "nothing"),
    (b"<!DOCTYPE html><html>", "a web page"),
    (b"\xef\xbb\xbf\r\n<html lang=de>", "a web page"),
    (b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0'>", "a web page"),
    (b"<!-- saved --><!-- twice -->\n<head>", "a web page"),
    (b"<script>location='/login'</script>", "a web page"),
    (b"<?xml version='1.0'?><!-- Inkscape -->\n<svg xmlns='x'>", "an SVG drawing"),
    (b"<!DOCTYPE svg PUBLIC 'x'><svg>", "an SVG drawing"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    (b'{"error": "not found"}', "JSON"),
    (b"[]", "JSON"),
    (b"\0\0\0 ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
    (b"\0\0\0 ftypmif1\0\0\0\0mif1heic", "a HEIC picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\xff\x0a\x00", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"II+\0\x08\0\0\0", "a BigTIFF picture"),
    (b"8BPS\0\1", "a Photoshop file"),
    (b"\0\0\1\0\1\0", "an icon"),
    (b"\0\0\0 ftypisom\0\0\2\0", "a video"),
    (b"\x1aE\xdf\xa3\x9f", "a video"),
    (b"%PDF-1.7", "a PDF"),
    (b"PK\3\4\x14", "a ZIP archive"),
    (b"\x1f\x8b\x08", "a compressed file"),
    (b"version https://git-lfs.github.com/spec/v1\n", "text"),
    ("schöne Grüße".encode(), "text"),
    (bytes(range(256)), "something else"),
]


@pytest.mark.parametrize(("data", "what"), CAME, ids=[f"{number}-{what}" for number, (_, what) in enumerate(CAME)])
def test_what_came_is_named(data: bytes, what: str) -> None:
    assert came(data) == what
    assert unsupported(data, status=202).startswith(f"unsupported format: {what} came, with status 202; use PNG, JPEG")


@pytest.mark.parametrize("unit", [b"<!---->", b"<!--", b"<?xml ?>", b" ", b"[", b"\xef\xbb\xbf", b"mif1", b"<"])
def test_no_start_of_a_file_takes_long(unit: bytes) -> None:
    started = time.process_time()
    came(unit * 100_000)
    assert time.process_time() - started < 0.5


def test_what_is_asked_for_is_what_is_taken_and_then_anything() -> None:
    assert ", ".join([*(f"image/{kind.lower()}" for kind in PICTURES), "*/*;q=0.1"]) == ACCEPT
