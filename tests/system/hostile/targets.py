"""Upload targets that a task may name: a line each, the name, the target, and words of the refusal."""

from __future__ import annotations

from collections.abc import Callable

from miner.media.uploads import Uploader
from miner.task.stages import Media, PresignedPut, TemporaryS3
from tests.support.scripted_server import RESET, Answer, floods, head, says, trickles, whole
from tests.system.hostile.addresses import PUBLIC_V4, resolve
from tests.system.hostile.cases import Bench, Case

SPELLING, PRIVATE, HTTPS = "plain http or https URL", "not public", "not https"
HEADER, OURS = "not valid HTTP", "a target may not set the header"
LATE, LOST, SHORT = "neither took nor sent anything for", "connection to the server failed", 0.15
Serve = Callable[[Answer], PresignedPut]


def at(url: str) -> PresignedPut:
    return PresignedPut(url=url)


def with_header(name: str, value: str) -> PresignedPut:
    return PresignedPut(url=f"https://{PUBLIC_V4}/", headers={name: value})


def credential(**changed: str) -> TemporaryS3:
    return TemporaryS3(**{"access_key_id": "A", "secret_access_key": "B", "session_token": "C", **changed})


ROWS = [
    # addresses
    Case("plain http", at("http://example.com/x"), HTTPS),
    Case("plain http on port 443", at("http://example.com:443/x"), HTTPS),
    Case("loopback", at("https://127.0.0.1/x"), PRIVATE),
    Case("loopback in decimal", at("https://2130706433/x"), "not a plain IP address"),
    Case("loopback by name", at("https://localhost/x"), PRIVATE),
    Case("loopback over IPv6", at("https://[::1]/x"), PRIVATE),
    Case("IPv4-mapped", at("https://[::ffff:10.0.0.1]/x"), PRIVATE),
    Case("a router", at("https://192.168.0.1/apply.cgi"), PRIVATE),
    Case("a name at home", at("https://router.test/x"), PRIVATE),
    Case("a name with a private address behind a public one", at("https://private-last.test/x"), PRIVATE),
    Case("the metadata", at("https://169.254.169.254/latest/api/token"), PRIVATE),
    Case("Docker's port", at(f"https://{PUBLIC_V4}:2376/x"), "neither 80 nor 443"),
    Case("ComfyUI", at("http://127.0.0.1:8188/upload/image"), HTTPS),
    Case("a file", at("file:///etc/cron.d/x"), SPELLING),
    Case("ftp", at("ftp://example.com/x"), SPELLING),
    Case("a user name", at("https://user:secret@example.com/x"), SPELLING),
    Case("line breaks", at("https://example.com/x\r\nX: y"), SPELLING),
    Case("nothing", at(""), SPELLING),
    # headers
    Case("a header that ends its line", with_header("X-A", "b\r\nHost: 127.0.0.1"), HEADER),
    Case("a header with a line feed", with_header("X-A", "b\nc: d"), HEADER),
    Case("a header that is folded", with_header("X-A", "b\r\n c"), HEADER),
    Case("a header's name that ends its line", with_header("X-A: b\r\nX-C", "d"), HEADER),
    Case("a header's name with a colon", with_header("X:A", "b"), HEADER),
    Case("a header's name with a blank", with_header("X A", "b"), HEADER),
    Case("a header without a name", with_header("", "b"), HEADER),
    Case("a header with NUL", with_header("X-A", "b\0c"), HEADER),
    Case("a header of other letters", with_header("X-A", "ü"), HEADER),
    Case("a header of 5000 letters", with_header("X-A", "b" * 5000), HEADER),
    Case("40 headers", PresignedPut(url="https://x.test/", headers={f"X-{n}": "" for n in range(40)}), "more than 32"),
    *(Case(f"{name} as a header", with_header(name, "1"), OURS) for name in (
        "Host", "Content-Length", "Transfer-Encoding", "transfer-encoding", "Connection", "Expect", "Upgrade", "TE",
        "Trailer", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection")),
    # S3 credentials
    Case("a key with a line break", credential(access_key_id="A\r\nHost: x"), "S3 credentials"),
    Case("a token with a line break", credential(session_token="C\nx: y"), "S3 credentials"),
    Case("a token with NUL", credential(session_token="C\0"), "S3 credentials"),
    Case("a secret of a lone surrogate", credential(secret_access_key="\ud800"), "S3 credentials"),
    Case("a secret of nothing", credential(secret_access_key=""), "S3 credentials"),
    Case("a key of other letters", credential(access_key_id="ü"), "S3 credentials"),
    Case("a token of 1 MB", credential(session_token="C" * 1_000_000), "S3 credentials"),
    # answers
    Case("takes it", whole(b""), None),
    Case("takes it and says much", whole(b"x" * 1_000_000), None),
    Case("takes it and goes on for ever", floods(head(200), bytes(65536)), None),
    Case("takes it and trickles", trickles(head(200, "Transfer-Encoding: chunked")), None),
    Case("redirects", whole(b"", "Location: http://127.0.0.1/", status=307), r"redirects \(307\)"),
    Case("redirects with a body without an end", floods(head(302, "Location: /"), bytes(65536)), r"redirects \(302\)"),
    Case("forbids it", whole(b"<Error><Code>secret</Code></Error>", status=403), r"refused the file \(403\)"),
    Case("is busy for 10^9 years", whole(b"", f"Retry-After: {'9' * 20}", status=503), "answered 503"),
    Case("says nothing", says(60.0), LATE, SHORT),
    Case("answers by the letter", trickles(b"HTTP/1.1 200 "), LATE, SHORT),
    Case("sends headers by the letter", trickles(b"HTTP/1.1 200 OK\r\nX: "), LATE, SHORT),
    Case("says 100 Continue for ever", floods(b"", head(100)), LATE, SHORT),
    Case("resets", says(RESET), LOST),
]  # fmt: skip


def run(bench: Bench, case: Case) -> None:
    path = bench.folder / "result.png"
    path.write_bytes(b"x" * 10_000)
    media = Media(path=path, content_type="image/png", size=10_000)
    target = case.given
    if not isinstance(target, PresignedPut | TemporaryS3):
        target = PresignedPut(url=bench.server.serve(target))
    uploader = Uploader(
        allow=frozenset({("127.0.0.1", bench.server.port)}),
        bucket="results",
        endpoint=f"http://127.0.0.1:{bench.server.port}",
        region="auto",
        timeout=case.seconds,
        resolve=resolve,
    )
    try:
        uploader.upload(media, target, key="")
    finally:
        uploader.close()
