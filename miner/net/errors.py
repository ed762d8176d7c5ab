"""What went wrong in an HTTP exchange, worded for logs and consumers.

Promises: the same text for the same failure, whichever library raised it (urllib3, requests, obstore). Never: puts an
address, a URL or anything that the other side sent into a text.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime

import requests
import urllib3

from miner.task.errors import Retryable

_LONGEST_WAIT = 3600.0  # seconds that `Retry-After` may ask for
_OBSTORE_STATUS = re.compile(r"status code: ([0-9]{3})")  # object_store's text: it has no attribute

_NO_ANSWER = (TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout)
_BAD_TLS = (ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError)
_BROKEN_OFF = (ConnectionError, http.client.IncompleteRead)


def in_words(error: BaseException, who: str) -> str:
    """Why an exchange with `who` ("the server", a host's name) failed, as a clause."""
    causes = list(_causes(error))

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if met(socket.gaierror, urllib3.exceptions.NameResolutionError):
        return f"the host name of {who} does not resolve"
    if met(*_BAD_TLS):
        return f"{who} has no valid TLS certificate{_detail(causes)}"
    if met(*_NO_ANSWER) and not met(urllib3.exceptions.NewConnectionError):  # a time-out in urllib3
        return f"{who} does not answer"
    if met(http.client.HTTPException) and not met(*_BROKEN_OFF):
        return f"{who} does not speak HTTP"
    return f"the connection to {who} failed{_detail(causes)}"


def is_tls_fault(error: BaseException) -> bool:
    """Whether TLS is why an exchange failed: a certificate, as a rule."""
    return any(isinstance(cause, _BAD_TLS) for cause in _causes(error))


def _detail(causes: Iterable[BaseException]) -> str:
    """The reason from the operating system or OpenSSL, in parentheses. Both use fixed texts."""
    for cause in causes:
        match cause:
            case ssl.SSLCertVerificationError():
                return f" ({cause.verify_message.partition(',')[0].lower()})"  # a host or address may follow
            case ssl.SSLError():
                return f" ({cause.reason.replace('_', ' ').lower()})" if cause.reason else ""
            case OSError() if cause.strerror:
                return f" ({cause.strerror.lower()})"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors that it wraps, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def too_slow(who: str, seconds: float) -> Retryable:
    """The error for an answer that did not arrive in full in time."""
    return Retryable(f"{who} sent no whole answer within {seconds:g} s")


def answered(who: str, status: int) -> str:
    """A clause for an unexpected status."""
    return f"{who} answered {status}"


def is_passing(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in (408, 425, 429) or status >= 500


def passing(who: str, status: int, headers: Mapping[str, str]) -> Retryable | None:
    """The error for a status after which the same request may succeed later; None for every other status."""
    return Retryable(answered(who, status), retry_after=retry_after(headers)) if is_passing(status) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for, in seconds, at most an hour. None if it is missing or malformed."""
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), _LONGEST_WAIT)
    try:
        return min(max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        return None


def obstore_status(error: BaseException) -> int | None:
    """The HTTP status in an error of obstore's, or None if the store did not answer."""
    found = _OBSTORE_STATUS.search(str(error))
    return int(found[1]) if found else None
