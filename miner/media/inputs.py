"""Untrusted inputs, fetched safely and within bounds.

Promises: a task's URL is requested under the guard of `miner.net`, for `max_bytes` and `timeout` seconds in all, with a
second more for each RATE bytes that arrive; the answer is kept as bytes, for `pictures.clean_image`.

Never: tells a consumer which address a name has.
"""

from __future__ import annotations

import base64
import random
import re
import threading
import time
from contextlib import closing
from urllib.parse import unquote_to_bytes

from miner.media.kinds import ACCEPT, is_page, picture_kind, unsupported
from miner.net.addresses import Allow, Refused
from miner.net.deadline import Deadline
from miner.net.egress import Egress
from miner.net.errors import Kind, Unreached, answered, passing
from miner.net.pools import read_bounded
from miner.net.session import Guard, NotPublic, Resolve, Response, Session, redirect, resolve
from miner.task import policy
from miner.task.errors import JobFault, Retryable
from miner.telemetry.sizes import gb

RATE = 250_000  # bytes a second; slower servers use up the time-out, since the prepare loop waits for them

_HEADERS = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
_ATTEMPTS = 3
_REDIRECTS = 3
_NAME = r"[a-z0-9!#$%&'*+.^_`|~-]{1,127}"
_DATA_HEAD = re.compile(
    rf'data:(?:{_NAME}/{_NAME})?(?:;{_NAME}=(?:"[^",]*"|[^";,]*))*(?P<base64>;base64)?',
    re.IGNORECASE | re.ASCII,
)
_LONGEST_HEAD = 1000  # characters of a data: URL before its comma
_STRANGE = re.compile(r"[^!-~]|%(?![0-9a-fA-F]{2})")  # in the body of a data: URL
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
# Codings whose result is not what it was (RFC 9110, 8.4.1). Others are labels: `aws-chunked`, `utf-8`, `binary`.
_PACKED = frozenset({"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz", "bzip2", "xz"})


class Fetcher:
    """Fetches what a task names by URL. Threads may share one."""

    def __init__(
        self,
        *,
        allow: Allow,
        max_bytes: int,
        timeout: float,
        backoff: float = 0.5,
        resolve: Resolve = resolve,
        egress: Egress | None = None,
    ) -> None:
        """`timeout` is in seconds, and so is `backoff`, the longest pause before the second attempt. `egress`: whose
        network failed."""
        self._guard = Guard(allow=allow, resolve=resolve)
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._backoff = backoff
        self._egress = egress or Egress()
        self._rng = random.Random()
        self._closed = threading.Event()

    def fetch(self, url: str, *, name: str = "image", within: float = float("inf")) -> bytes:
        """The bytes of an http, https or data URL. Blocks for at most `within` seconds, and `timeout` for what is slow.

        A server that is down or overloaded is asked three times, and one that cannot be reached once more when this
        machine's network is known to work. Raises JobFault, with `name` (the parameter) before
        a reason that the consumer can act on, NetworkFault if this machine's network failed, and Retryable if the
        fetcher is closed meanwhile.
        """
        try:
            if url[:5].lower() == "data:":
                return _decode_data(url, self._max_bytes)
            limit = Deadline(
                max(min(self._timeout, within), 0.001),
                longest=min(self._timeout + self._max_bytes / RATE, within),
            )
            with limit, closing(Session(self._guard)) as session:
                try:
                    body = self._persist(session, url, limit)
                except Unreached as error:
                    if self._closed.is_set():
                        raise
                    self._egress.judge(error, who=name)
                    body = self._follow(session, url, limit)  # our network is there again, if it was away
            if is_page(body):  # a captive portal's, perhaps
                self._egress.judge(Retryable("a web page came"), who=name)
            return body
        except Refused as refusal:
            kind: Kind = "address" if isinstance(refusal, NotPublic) else "answer"
            self._egress.judge(Unreached(str(refusal), kind=kind), who=name)
            raise JobFault(f"{name}: {refusal}") from None
        except Retryable as error:
            if self._closed.is_set():
                raise Retryable(f"{name}: the miner is stopping") from None
            self._egress.judge(error, who=name)
            raise JobFault(f"{name}: {error.message}") from None

    def close(self) -> None:
        """Make no further attempts; a current one ends by itself."""
        self._closed.set()

    def _persist(self, session: Session, url: str, limit: Deadline) -> bytes:
        """Try until it succeeds, the attempts or the time are used up, or the fetcher is closed."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._follow(session, url, limit)
            except Retryable as error:
                asked = error.retry_after or 0.0
                pause = policy.backoff(
                    attempt, rng=self._rng, base=self._backoff, cap=8 * self._backoff, at_least=asked
                )
                if attempt == _ATTEMPTS or pause >= limit.ends - time.monotonic() or self._closed.wait(pause):
                    raise

    def _follow(self, session: Session, url: str, limit: Deadline) -> bytes:
        for _ in range(1 + _REDIRECTS):
            with session.exchange("GET", url, headers=_HEADERS) as response:
                target = redirect(response, url)
                if target is None:
                    return self._body(response, limit)
                url = target
        raise Refused(f"the server redirects more than {_REDIRECTS} times")

    def _body(self, response: Response, limit: Deadline) -> bytes:
        status = response.status
        if error := passing("the server", status, response.headers):
            raise error
        if not 200 <= status < 300:
            raise Refused(answered("the server", status))
        # Identity was requested; a body that is compressed anyway could be a bomb, so it is not unpacked.
        codings = response.headers.get("Content-Encoding", "").lower().split(",")
        if packed := _PACKED.intersection(map(str.strip, codings)):
            raise Refused(f"the server compresses its answer ({min(packed)}), although it was asked not to")
        body = read_bounded(response, self._max_bytes, limit=limit, rate=RATE)
        if body is None:
            raise _too_large(self._max_bytes)
        if status != 200 and picture_kind(body) is None:  # accepted, but not there yet
            raise Refused(unsupported(body, status=status))
        return body


def _decode_data(url: str, max_bytes: int) -> bytes:
    """The bytes in a `data:` URL (RFC 2397) of any type, strictly: padded base64 or percent-encoding."""
    head, comma, _ = url[:_LONGEST_HEAD].partition(",")
    match = _DATA_HEAD.fullmatch(head)
    if not comma or match is None:
        raise Refused("the data: URL is not an image in base64 or percent-encoding")
    if len(url) > 3 * max_bytes + len(head) + 1:  # all of it percent-encoded
        raise _too_large(max_bytes)
    if _STRANGE.search(url, len(head) + 1):
        raise Refused("the data: URL contains invalid characters")
    data = unquote_to_bytes(url[len(head) + 1 :])
    if match["base64"]:
        if len(data) % 4 or not _BASE64.fullmatch(data):
            raise Refused("the data: URL is not valid base64")
        data = base64.b64decode(data)
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> Refused:
    return Refused(f"it is larger than {gb(max_bytes)}")
