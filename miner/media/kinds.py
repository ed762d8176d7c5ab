"""What a file is, judged by its first bytes. Pure.

Promises: a name in words for whatever comes in place of a picture, without anything of its content.
"""

from __future__ import annotations

import re

PICTURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "AVIF": re.compile(rb"\0\0..ftyp(?:avi[fs]|(?:mif1|msf1)....(?:....){0,8}?avif)", re.DOTALL),
}
"""The formats that are taken, by Pillow's names."""

ACCEPT = ", ".join((*(f"image/{name.lower()}" for name in PICTURES), "*/*;q=0.1"))
"""The header of a request for a picture. Without `*/*`, some servers answer 406 although they have it."""

_MARKUP = {
    "an SVG drawing": rb"<(?:!doctype svg|svg)\b",
    "a web page": rb"<(?:!doctype html|html|head|meta|script|title|body)\b",
    "XML": rb"<[?!a-z]",
}
_OTHERS = {
    "JSON": rb"(?:\xef\xbb\xbf)?\s*[{\[]\s*[\"{}\[\]0-9tfn-]",
    "a HEIC picture": rb".{4}ftyp(?:hei[cmsx]|hev[cx]|mif1|msf1)",
    "a JPEG XL picture": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a JPEG 2000 picture": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "a BigTIFF picture": rb"II\+\0|MM\0\+",
    "a Photoshop file": rb"8BPS",
    "an icon": rb"\0\0[\1\2]\0",
    "a video": rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI |OggS",
    "a PDF": rb"%PDF-",
    "a ZIP archive": rb"PK[\3\5\7]",
    "a compressed file": rb"\x1f\x8b|\x28\xb5\x2f\xfd|BZh|\xfd7zXZ",
    "text": rb"[\t\n\r -~\x80-\xff]+\Z",
}
_MARKUP_IS, _OTHERS_ARE = (
    {name: re.compile(magic, re.DOTALL | re.IGNORECASE) for name, magic in table.items()}
    for table in (_MARKUP, _OTHERS)
)
_HEAD = 1024  # bytes that are looked at


def picture_kind(data: bytes) -> str | None:
    """The format of a picture that is taken; None for everything else."""
    return next((kind for kind, magic in PICTURES.items() if magic.match(data)), None)


def came(data: bytes) -> str:
    """What came instead of a picture, as a noun."""
    if not data:
        return "nothing"
    head = data[:_HEAD]
    for table, text in ((_MARKUP_IS, _first_element(head)), (_OTHERS_ARE, head)):
        for name, magic in table.items():
            if magic.match(text):
                return name
    return "something else"


def _first_element(head: bytes) -> bytes:
    """Without what may stand before a document's first element: a byte-order mark, a declaration, comments."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    while text.startswith((b"<?xml", b"<!--")):
        _, _, text = text.partition(b"-->" if text.startswith(b"<!--") else b"?>")
        text = text.lstrip()
    return text


def is_page(data: bytes) -> bool:
    """Whether it is a web page: a captive portal's, perhaps."""
    return came(data) == "a web page"


def unsupported(data: bytes, *, status: int = 200) -> str:
    """Why a file is no picture, as a clause for the consumer; `status` of the answer it came with."""
    how = "" if status == 200 else f", with status {status}"
    return f"unsupported format: {came(data)} came{how}; use {', '.join(PICTURES)}"
