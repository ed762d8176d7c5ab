"""What went wrong in an HTTP exchange, worded for logs and consumers.

Promises: the same text for the same failure, whichever library raised it (urllib3, requests). Never: puts an address, a
URL or anything that the other side sent into a text.
"""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

import requests
import urllib3

from miner.task.errors import Retryable

_LONGEST_WAIT = 3600.0  # seconds that `Retry-After` may ask for
_NO_ANSWER = (TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout)
_BAD_TLS = (ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError)
_BROKEN_OFF = (ConnectionError, http.client.IncompleteRead)
_OUR_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})

_NOT_VALID_NOW = frozenset({9, 10})  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED

Kind = Literal["ours", "name", "look-up", "address", "connection", "certificate", "answer"]
"""How far an exchange came: a limit or a broken file of this machine · no such name · no answer to the look-up · a name
with a private address · no connection, or it broke · no valid certificate · an answer that is of no use."""


MOST_LINES = 250_000  # in a row, of heads, interim ones included, or of a trailer: a second of work


class EndlessLines(http.client.HTTPException):
    """More than MOST_LINES came, and no body."""


class Unreached(Retryable):
    """There was no answer of use. `kind` tells how far it came, for `egress` to judge whose network failed."""

    def __init__(self, message: str, *, kind: Kind, clock: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.clock = clock  # the certificate is not valid at this time


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
    if met(EndlessLines):
        return f"{who} sent no whole answer within {MOST_LINES} lines"
    if met(http.client.HTTPException) and not met(*_BROKEN_OFF):
        return f"{who} does not speak HTTP"
    return f"the connection to {who} failed{_detail(causes)}"


def unreached(error: BaseException, who: str) -> Unreached:
    """The error for an exchange with `who` that failed, as above."""
    causes = list(_causes(error))
    codes = {cause.verify_code for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)}
    return Unreached(in_words(error, who), kind=_kind(causes), clock=bool(codes & _NOT_VALID_NOW))


def _kind(causes: list[BaseException]) -> Kind:
    for cause in causes:
        match cause:
            case OSError() if cause.errno in _OUR_LIMITS and not isinstance(cause, socket.gaierror):
                return "ours"
            case FileNotFoundError() | PermissionError() if any(isinstance(one, _BAD_TLS) for one in causes):
                return "ours"  # the list of certificates
            case socket.gaierror():
                return look_up_kind(cause)
    if any(isinstance(cause, _BAD_TLS) for cause in causes):
        return "certificate"
    if in_words(causes[0], "").endswith(("not speak HTTP", "lines")):
        return "answer"
    return "connection"


def look_up_kind(error: OSError) -> Kind:
    """What a look-up that failed means: a name that nobody knows, or a resolver that does not answer."""
    if isinstance(error, socket.gaierror):
        return "name" if error.errno in _NO_SUCH_NAME else "look-up"
    return "ours" if error.errno in _OUR_LIMITS else "look-up"


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
                reason = getattr(cause, "reason", None)  # only OpenSSL sets it
                return f" ({reason.replace('_', ' ').lower()})" if reason else ""
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
    date = http_date(value)
    return None if date is None else min(max(date - time.time(), 0.0), _LONGEST_WAIT)


def http_date(value: str) -> float | None:
    """Unix seconds; None if it is malformed."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
