"""Servers that a task may name: a line each, the name, what the server says, and words of the refusal.

The server is on loopback, and allowed by name, so that all that stands between it and the miner is how it is read.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from miner.media.inputs import Fetcher
from miner.media.pictures import clean_image
from tests.support.scripted_server import (
    RESET,
    Answer,
    Request,
    Step,
    floods,
    head,
    in_turn,
    redirect,
    reply,
    says,
    trickles,
    whole,
)
from tests.system.hostile.addresses import resolve
from tests.system.hostile.cases import Bench, Case
from tests.system.hostile.forge import encoded, noise, zeros

MAX_BYTES = 250_000
GOOD = encoded(noise(), "PNG")
OK = whole(GOOD, "Content-Type: image/png")

LATE, LARGE, LOST = "no whole answer within", "it is larger than 250 KB", "connection to the server failed"
NOT_HTTP, NOT_PUBLIC, NO_URL = f"does not speak HTTP|{LOST}", "not public", "plain http or https URL"
PACKED, BROKEN, NONE_OF, MANY = (
    "compresses its answer",
    "file is broken",
    "unsupported format",
    "redirects more than 3 times",
)
SHORT = 0.15  # seconds, for those that would go on for ever
ENDLESS = "no whole answer within 250000 lines", 100.0  # seconds; a second of work, and that on a busy machine


CHUNKED = head(200, "Transfer-Encoding: chunked")


def chunked(*blocks: bytes) -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(b), b) for b in (*blocks, b""))


def without_cookies(request: Request) -> Iterator[Step]:
    yield from (whole(b"", status=418) if b"cookie" in request.head.lower() else OK)(request)


def without_credentials(request: Request) -> Iterator[Step]:
    told = b"authorization" in request.head.lower() or b"referer" in request.head.lower()
    yield from (whole(b"", status=418) if told else OK)(request)


ROWS = [
    Case("a good picture", OK, None),
    # what is no answer
    Case("closes at once", says(), LOST),
    Case("resets at once", says(RESET), LOST),
    Case("says nothing", says(60.0), LATE, SHORT),
    Case("ssh", says(b"SSH-2.0-OpenSSH_9.6\r\n"), NOT_HTTP),
    Case("smtp", says(b"220 mail ESMTP\r\n"), NOT_HTTP),
    Case("redis", says(b"-ERR unknown command 'GET'\r\n"), NOT_HTTP),
    Case("random bytes", says(bytes(range(256)) * 8), NOT_HTTP),
    Case("HTTP/0.9", says(b"<html>hello</html>"), NOT_HTTP),
    Case("HTTP/9.9", says(b"HTTP/9.9 200 OK\r\n\r\n"), NOT_HTTP),
    Case("status in words", says(b"HTTP/1.1 fine OK\r\n\r\n"), NOT_HTTP),
    Case("status of four digits", says(b"HTTP/1.1 2000 OK\r\n\r\n"), NOT_HTTP),
    Case("negative status", says(b"HTTP/1.1 -200 OK\r\n\r\n"), NOT_HTTP),
    Case("half a status line", says(b"HTTP/1.1 20"), NOT_HTTP),
    Case("a status line of 100 KB", says(b"HTTP/1.1 200 " + b"x" * 100_000), NOT_HTTP),
    Case("a header of 100 KB", says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), NOT_HTTP),
    Case("500 headers", says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"), NOT_HTTP),
    Case("headers without an end", floods(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100), NOT_HTTP),
    Case("a header line without an end", floods(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536), NOT_HTTP),
    Case("100 Continue for ever", floods(b"", head(100)), LATE, SHORT),
    Case("100 Continue for hours", floods(b"", head(100)), *ENDLESS),
    Case("103 Early Hints for hours", floods(b"", head(103, "Link: <x>")), *ENDLESS),
    Case("interim replies before a picture", says(head(100), head(103, "Link: <x>") * 3, head(102), reply(GOOD)), None),
    Case("101 to another protocol", says(head(101, "Upgrade: websocket")), "answered 101"),
    Case("trailers for hours", floods(chunked(GOOD)[:-2], b"X: y\r\n"), *ENDLESS),
    Case("a few trailers", says(chunked(GOOD)[:-2] + b"X: y\r\n" * 9 + b"\r\n"), None),
    # trickles
    Case("a status line by the letter", trickles(b"HTTP/1.1 200 "), LATE, SHORT),
    Case("a header by the letter", trickles(b"HTTP/1.1 200 OK\r\nX: "), LATE, SHORT),
    Case("a header a moment", trickles(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every=0.05), LATE, SHORT),
    Case("100 Continue now and then", trickles(b"", head(100)), LATE, SHORT),
    Case("a body by the letter", trickles(head(200, "Content-Length: 100000")), LATE, SHORT),
    Case("a body by the letter, without its length", trickles(head(200)), LATE, SHORT),
    Case("a chunk's size by the digit", trickles(CHUNKED, b"0"), LATE, SHORT),
    Case("a chunk's extension by the letter", trickles(CHUNKED + b"5;x="), LATE, SHORT),
    Case("trailers by the line", trickles(chunked(GOOD)[:-2], b"X: y\r\n"), LATE, SHORT),
    Case("a picture and then silence", says(head(200, "Content-Length: 99999") + GOOD, 60.0), LATE, SHORT),
    Case("a picture, unclosed, without its length", says(head(200) + GOOD, 60.0), LATE, SHORT),
    # lies about length
    Case("longer than it said", whole(GOOD + b"<script>"), None),
    Case("longer than its Content-Length", says(head(200, f"Content-Length: {len(GOOD)}") + GOOD + bytes(9)), None),
    Case("shorter than its Content-Length", says(head(200, "Content-Length: 9999") + GOOD), LOST),
    Case("much longer than its Content-Length", says(head(200, "Content-Length: 60") + GOOD), "cut off"),
    Case("Content-Length of 50 GB", says(head(200, "Content-Length: 50000000000"), 60.0), LARGE),
    Case("Content-Length of 100 digits", says(head(200, f"Content-Length: {'9' * 100}"), 60.0), LARGE),
    Case("Content-Length of 10,000 digits", says(head(200, f"Content-Length: {'9' * 10_000}") + GOOD), None),
    Case("negative Content-Length", says(head(200, "Content-Length: -1") + GOOD), None),
    Case("Content-Length in words", says(head(200, "Content-Length: all") + GOOD), None),
    Case("two Content-Lengths", says(head(200, "Content-Length: 5", "Content-Length: 6") + GOOD), NOT_HTTP),
    Case("Content-Length in full-width digits", says(head(200, "Content-Length: \xb2\xb2") + GOOD), None),
    Case("one byte above the limit", whole(bytes(MAX_BYTES + 1)), LARGE),
    Case("no end", floods(head(200), bytes(65536)), LARGE),
    Case("no end of chunks", floods(CHUNKED, b"8000\r\n" + bytes(0x8000) + b"\r\n"), LARGE),
    Case("no end of chunks of one byte", floods(CHUNKED, b"1\r\nx\r\n" * 1000), LARGE),
    Case("a chunk of 2^64", says(CHUNKED + b"FFFFFFFFFFFFFFFF\r\n" + GOOD), LOST),
    Case("a chunk of 2^4000", says(CHUNKED + b"F" * 1000 + b"\r\n" + GOOD), NOT_HTTP),
    Case("a chunk of -1", says(CHUNKED + b"-1\r\n" + GOOD), LOST),
    Case("a chunk of words", says(CHUNKED + b"lots\r\n" + GOOD), LOST),
    Case("chunks that break off", says(chunked(GOOD)[:-40]), LOST),
    Case("chunks and a length", says(chunked(GOOD).replace(b"\r\n", b"\r\nContent-Length: 1\r\n", 1)), None),
    Case("chunks of one byte, many", says(CHUNKED + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n"), LARGE),
    Case("chunks of one byte, few", says(chunked(*(GOOD[at : at + 1] for at in range(200)), GOOD[200:])), None),
    Case("good chunks", says(chunked(GOOD[:100], GOOD[100:])), None),
    # packed bodies
    Case("gzip bomb", whole(gzip.compress(bytes(10 << 20)), "Content-Encoding: gzip"), PACKED),
    Case("gzip bomb, chunked", says(chunked(zeros(64)).replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)), PACKED),
    Case("deflate bomb", whole(zeros(64), "Content-Encoding: deflate"), PACKED),
    Case("gzip in gzip", whole(gzip.compress(gzip.compress(GOOD)), "Content-Encoding: gzip, gzip"), PACKED),
    Case("brotli", whole(b"\xcf\xff\xff\x7f\xf8", "Content-Encoding: br"), PACKED),
    Case("zstd", whole(b"\x28\xb5\x2f\xfd", "Content-Encoding: zstd"), PACKED),
    Case("an encoding that nobody knows", whole(GOOD, "Content-Encoding: x-secret"), None),
    Case("gzip as a transfer encoding", says(head(200, "Transfer-Encoding: gzip, chunked") + zlib.compress(GOOD)),
         f"{NONE_OF}|{LOST}"),
    *(Case(f"{coding}, a label", whole(GOOD, f"Content-Encoding: {coding}"), None)
      for coding in ("aws-chunked", "utf-8", "binary", "UTF-8, binary", "none", "8bit", "")),
    *(Case(f"{coding}, packed", whole(GOOD, f"Content-Encoding: {coding}"), rf"{PACKED} \({packed}\)")
      for coding, packed in (("X-GZIP", "x-gzip"), ("aws-chunked, gzip", "gzip"), ("gzip,identity", "gzip"))),
    Case("identity", whole(GOOD, "Content-Encoding: Identity"), None),
    # statuses
    *(Case(f"status {status}", whole(GOOD, status=status), f"answered {status}")
      for status in (300, 304, 400, 401, 402, 403, 404, 406, 407, 410, 418, 421, 451, 499)),
    Case("204 without a body", says(head(204)), "nothing came, with status 204"),
    Case("202 without a body", whole(b"", status=202), "nothing came, with status 202"),
    Case("202 with a promise", whole(b'{"state": "queued"}', status=202), "JSON came, with status 202"),
    Case("202 with a picture", whole(GOOD, status=202), None),
    Case("401 that asks for a password", whole(b"", 'WWW-Authenticate: Basic realm="x"', status=401), "answered 401"),
    Case("407 that asks for a password", whole(b"", 'Proxy-Authenticate: Basic realm="x"', status=407), "answered 407"),
    Case("500 for ever", whole(b"", status=500), "answered 500"),
    Case("503 that asks for an hour", whole(b"", "Retry-After: 3600", status=503), "answered 503"),
    Case("429 that asks for 10^9 years", whole(b"", f"Retry-After: {'9' * 30}", status=429), "answered 429"),
    Case("429 until no day at all", whole(b"", "Retry-After: Fri, 31 Feb 9999 25:00", status=429), "answered 429"),
    Case("503 twice and then a picture", in_turn(whole(b"", status=503), whole(b"", status=503), OK), None),
    Case("a reset and then a picture", in_turn(says(RESET), OK), None),
    Case("half a picture and then a whole one", in_turn(says(head(200, "Content-Length: 9999") + GOOD), OK), None),
    # redirects
    Case("to itself", redirect(""), MANY),
    Case("to itself, each time another way", redirect("?again"), MANY),
    Case("four times", in_turn(*[redirect("")] * 4, OK), MANY),
    Case("three times", in_turn(*[redirect("")] * 3, OK), None),
    Case("permanently", in_turn(redirect("", 301), redirect("", 308), redirect("", 303), OK), None),
    Case("without a place", says(head(302, "Content-Length: 0")), "answered 302"),
    Case("to no host", redirect("http:///x"), "answered 404"),
    Case("to loopback", redirect("http://127.0.0.1/"), NOT_PUBLIC),
    Case("to loopback without a scheme", redirect("//127.0.0.1/"), NOT_PUBLIC),
    Case("to loopback in decimal", redirect("http://2130706433/"), "not a plain IP address"),
    Case("to loopback over IPv6", redirect("http://[::1]/"), NOT_PUBLIC),
    Case("to a name at home", redirect("http://router.test/"), NOT_PUBLIC),
    Case("to the metadata", redirect("http://169.254.169.254/latest/meta-data/", 307), NOT_PUBLIC),
    Case("to another port", redirect("http://127.0.0.1:1/"), "neither 80 nor 443"),
    Case("to a file", redirect("file:///etc/passwd"), NO_URL),
    Case("to a data URL", redirect("data:image/png;base64,AAAA"), NO_URL),
    Case("to ftp", redirect("ftp://example.com/"), NO_URL),
    Case("to a user", redirect("http://a:b@127.0.0.1/"), NO_URL),
    Case("to half a bracket", redirect("http://[::1/"), "redirects to an invalid URL"),
    Case("to bytes that are no text", redirect("/\xff\xfe"), "redirects to an invalid URL"),
    Case("to a place behind a line break", redirect("/x\r\n http://127.0.0.1/"), f"{NO_URL}|{NOT_HTTP}|answered"),
    Case("to two places", says(head(302, "Location: /a", "Location: http://127.0.0.1/")), "plain|answered|public"),
    Case("to a place of 60 KB", redirect("/" + "x" * 60_000), NO_URL),
    Case("with a body without an end", floods(head(302, "Location: http://127.0.0.1/"), bytes(65536)), NOT_PUBLIC),
    Case("with a bomb for a body", whole(
        zeros(64), "Location: http://[::1]/", "Content-Encoding: deflate", status=302), NOT_PUBLIC),
    Case("with a cookie", in_turn(redirect("", 302, "Set-Cookie: id=secret; Path=/"), without_cookies), None),
    Case("and says who sent it", in_turn(redirect("?token=secret"), without_credentials), None),
    # other things than pictures
    Case("a page", whole(b"<!doctype html><script>alert(1)</script>", "Content-Type: image/png"), "a web page came"),
    Case("an empty body", whole(b""), "nothing came"),
    Case("a picture that calls itself a page", whole(GOOD, "Content-Type: text/html"), None),
]  # fmt: skip


def run(bench: Bench, case: Case) -> None:
    answer: Answer = case.given
    fetch(bench, bench.server.serve(answer), case.seconds)


def fetch(bench: Bench, url: str, seconds: float) -> None:
    allow = frozenset({("127.0.0.1", bench.server.port)})
    fetcher = Fetcher(allow=allow, max_bytes=MAX_BYTES, timeout=seconds, backoff=0.001, resolve=resolve)
    try:
        clean_image(fetcher.fetch(url), max_pixels=1_000_000)
    finally:
        fetcher.close()
