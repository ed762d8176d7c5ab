"""One HTTP request, and its failure as one of our errors.

It never retries, and never follows a redirect.
"""

from __future__ import annotations

import requests

from miner import __version__
from miner.sdk.errors import ConnectionFailed
from miner.sdk.replies import refusal

USER_AGENT = f"xalora-sdk-python/{__version__}"


def open_session() -> requests.Session:
    """A session with our User-Agent. The caller closes it."""
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    return session


def send(
    session: requests.Session,
    method: str,
    url: str,
    *,
    timeout: float,
    body: bytes | None = None,
    content_type: str | None = None,
    stream: bool = False,
) -> requests.Response:
    """The 2xx reply. `timeout` is in seconds, for connecting and for each silence; blocks.

    Raises ConnectionFailed without a reply, APIError for one that is not 2xx. No message shows a URL's query, which may
    be a secret. A redirect is an error: a body with a key in it must not go elsewhere.
    """
    call = call_of(method, url)
    try:
        reply = session.request(
            method,
            url,
            data=body,
            headers={"Content-Type": content_type} if content_type else None,
            timeout=timeout,
            allow_redirects=False,
            stream=stream,
        )
        if 200 <= reply.status_code < 300:
            return reply
        with reply:
            raise refusal(
                reply.content,
                call=call,
                status=reply.status_code,
                reason=reply.reason,
                retry_after=reply.headers.get("Retry-After"),
            )
    except requests.RequestException as error:
        raise ConnectionFailed(f"{call} got no reply: {why(error, timeout=timeout)}") from error


def call_of(method: str, url: str) -> str:
    """The call, as in messages."""
    return f"{method} {url.partition('?')[0]}"


def why(error: requests.RequestException, *, timeout: float) -> str:
    """A short reason; requests' own text is a page, and names the whole URL."""
    if isinstance(error, requests.Timeout):
        return f"none in {timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy failed"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "the connection was refused or lost; is the server up, and the URL right?"
    return type(error).__name__
