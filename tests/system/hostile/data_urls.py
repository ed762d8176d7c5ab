"""`data:` URLs that a task may send: a line each, the name, the URL, and words of the refusal."""

from __future__ import annotations

import base64
from urllib.parse import quote_from_bytes

from miner.media.inputs import Fetcher
from miner.media.pictures import clean_image
from tests.system.hostile.cases import Bench, Case
from tests.system.hostile.forge import encoded, noise

MAX_BYTES = 125_000
GOOD = encoded(noise(), "PNG")
BASE64 = base64.b64encode(GOOD).decode()

NO_IMAGE, STRANGE, NOT_BASE64 = "not an image", "contains invalid characters", "not valid base64"
LARGE = "larger than 125 KB"

ROWS = [
    Case("base64", f"data:image/png;base64,{BASE64}", None),
    Case("in capitals", f"DATA:IMAGE/PNG;BASE64,{BASE64}", None),
    Case("without a type", f"data:;base64,{BASE64}", None),
    Case("percent-encoded", f"data:image/png,{quote_from_bytes(GOOD)}", None),
    Case("percent-encoded base64", f"data:image/png;base64,{BASE64.replace('+', '%2B').replace('/', '%2F')}", None),
    Case("the wrong type of image", f"data:image/gif;base64,{BASE64}", None),
    Case("no comma", f"data:image/png;base64{BASE64}", NO_IMAGE),
    Case("a comma after 300 letters", f"data:image/{'x' * 300},{BASE64}", NO_IMAGE),
    Case("a page", "data:text/html,<script>alert(1)</script>", "a web page came"),
    Case("any type", f"data:*/*;base64,{BASE64}", None),
    Case("a character set", f"data:image/png;charset=utf-8;base64,{BASE64}", None),
    Case("base64 twice", f"data:image/png;base64;base64,{BASE64}", NO_IMAGE),
    Case("with slashes", f"data://image/png;base64,{BASE64}", NO_IMAGE),
    Case("no more than the scheme", "data:", NO_IMAGE),
    Case("nothing behind the comma", "data:image/png;base64,", "unsupported format"),
    Case("without padding", f"data:image/png;base64,{BASE64[:-1]}", NOT_BASE64),
    Case("more padding", f"data:image/png;base64,{BASE64}====", NOT_BASE64),
    Case("padding in the middle", "data:image/png;base64,AA==AAAA", NOT_BASE64),
    Case("the other alphabet", "data:image/png;base64,_-_-", NOT_BASE64),
    Case("stars", "data:image/png;base64,****", NOT_BASE64),
    Case("blanks", f"data:image/png;base64,{BASE64[:8]} {BASE64[8:]}", STRANGE),
    Case("line breaks", f"data:image/png;base64,{BASE64[:8]}\r\n{BASE64[8:]}", STRANGE),
    Case("half a percent sign", "data:image/png,%4", STRANGE),
    Case("a percent sign of no digits", "data:image/png,%zz", STRANGE),
    Case("other letters", "data:image/png;base64,ÄÖÜ", STRANGE),
    Case("a lone surrogate", "data:image/png;base64,\ud800", STRANGE),
    Case("NUL", "data:image/png;base64,AAAA\0", STRANGE),
    Case("too much base64", f"data:image/png;base64,{'A' * 200_000}", LARGE),
    Case("too much in percent signs", f"data:image/png,{'%00' * 140_000}", LARGE),
    Case("3 MB of commas", f"data:image/png{',' * 3_000_000}", LARGE),
    Case("3 MB of percent signs", f"data:image/png,{'%' * 3_000_000}", LARGE),
    Case("an SVG", "data:image/svg+xml,%3Csvg%3E%3C/svg%3E", "unsupported format"),
]  # fmt: skip


def run(_bench: Bench, case: Case) -> None:
    fetcher = Fetcher(allow=frozenset(), max_bytes=MAX_BYTES, timeout=case.seconds)
    clean_image(fetcher.fetch(case.given), max_pixels=1_000_000)
    fetcher.close()
