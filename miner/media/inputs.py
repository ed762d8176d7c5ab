"""Untrusted media: fetched safely, bounded, decoded, and drawn anew.

Promises: a URL of a task is asked under the guard of `miner.net`, for `timeout` seconds and `max_bytes` in all, and an
answer is kept only as bytes; `clean_image` turns such bytes into a PNG that holds pixels and nothing else of them.

Never: opens a format that is not listed, decodes before the size in the header was judged, or tells a consumer which
address a name has.
"""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

import requests
import tenacity

from miner.media.pictures import clean_image
from miner.net import session as net
from miner.net.addresses import Refused, parse_allow
from miner.net.deadline import Deadline
from miner.task.errors import JobFault, Retryable

__all__ = ["Fetcher", "clean_image"]

_ATTEMPTS = 3
_REDIRECTS = 3
_CHUNK = 1 << 16  # bytes
_DATA_HEAD = re.compile(r"data:(?:image/[a-z0-9.+-]{1,64})?(?P<base64>;base64)?", re.IGNORECASE | re.ASCII)
_STRANGE = re.compile(r"[^!-~]|%(?![0-9a-fA-F]{2})")  # in the body of a data: URL
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_MAX_DATA_URL = 2 << 20  # characters; a reply of the sequencer has at most 1 MiB


class Fetcher:
    """Fetches what a task names by URL. Threads may share one."""

    def __init__(
        self,
        *,
        allow: Sequence[str],
        max_bytes: int,
        timeout: float,
        backoff: float = 0.5,
        resolve: net.Resolve = net.resolve,
    ) -> None:
        """`allow` holds `host:port` that may be private (ConfigError if malformed); times are in seconds."""
        self._guard = net.Guard(allow=parse_allow(allow), resolve=resolve)
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._backoff = tenacity.wait_random_exponential(multiplier=backoff, max=8 * backoff)
        self._closed = threading.Event()

    def fetch(self, url: str, *, name: str = "image") -> bytes:
        """The bytes behind an http, https or data URL. Blocks for `timeout` seconds at most.

        A server that is away or overloaded is asked three times. Raises JobFault, with `name` (the parameter) in front
        of a reason that the consumer can act on, and Retryable if the fetcher was closed meanwhile.
        """
        try:
            if url[:5].lower() == "data:":
                return _decode_data(url, self._max_bytes)
            with Deadline(self._timeout) as limit, net.Session(self._guard) as session:
                data: bytes = self._attempts(limit)(self._follow, session, url)
                return data
        except Refused as refusal:
            raise JobFault(f"{name}: {refusal}") from None
        except Retryable as error:
            if self._closed.is_set():
                raise Retryable(f"{name}: the miner is stopping") from None
            raise JobFault(f"{name}: {error.message}") from None

    def close(self) -> None:
        """Makes no further attempt; one that is under way ends by itself."""
        self._closed.set()

    def _attempts(self, limit: Deadline) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(_ATTEMPTS),
                tenacity.stop_before_delay(limit.left),
                tenacity.stop_when_event_set(self._closed),
            ),
            wait=self._pause,
            sleep=tenacity.sleep_using_event(self._closed),
            reraise=True,
        )

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_for = error.retry_after or 0.0 if isinstance(error, Retryable) else 0.0
        return asked_for + self._backoff(state)

    def _follow(self, session: net.Session, url: str) -> bytes:
        for _ in range(1 + _REDIRECTS):
            with session.exchange("GET", url, headers={"Accept": "image/*", "Accept-Encoding": "identity"}) as response:
                target = net.redirect(response, url)
                if target is None:
                    return self._body(response)
                url = target
        raise Refused(f"the server redirects more than {_REDIRECTS} times")

    def _body(self, response: requests.Response) -> bytes:
        status = response.status_code
        if net.is_passing(status):
            raise Retryable(f"the server answered {status}", retry_after=net.retry_after(response.headers))
        if not 200 <= status < 300:
            raise Refused(f"the server answered {status}")
        # It was asked for identity; what comes packed all the same could be a bomb, and is not unpacked.
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise Refused("the server compresses its answer")
        self._bound(response.raw.length_remaining or 0)
        body = io.BytesIO()
        while chunk := response.raw.read(_CHUNK, decode_content=False):
            body.write(chunk)
            self._bound(body.tell())
        return body.getvalue()

    def _bound(self, size: int) -> None:
        if size > self._max_bytes:
            raise _too_large(self._max_bytes)


def _decode_data(url: str, max_bytes: int) -> bytes:
    """The bytes in a `data:` URL (RFC 2397), strictly: an image or no type, padded base64 or percent-encoding."""
    head, comma, _ = url[:200].partition(",")
    match = _DATA_HEAD.fullmatch(head)
    if not comma or match is None:
        raise Refused("the data: URL is not one of an image")
    if len(url) > _MAX_DATA_URL:
        raise Refused("the data: URL is too long; give the URL of a file")
    if _STRANGE.search(url, len(head) + 1):
        raise Refused("the data: URL has characters that do not belong there")
    data = unquote_to_bytes(url[len(head) + 1 :])
    if match["base64"]:
        if len(data) % 4 or not _BASE64.fullmatch(data):
            raise Refused("the data: URL is not valid base64")
        data = base64.b64decode(data)
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> Refused:
    return Refused(f"it has more than {max_bytes / (1 << 20):.3g} MB")
