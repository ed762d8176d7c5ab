"""What is judged of an upload target before a render: its headers, credentials and dates. Pure.

A URL that has not expired yet is accepted, however soon it does: a render's length is not known, and the sequencer may
lease the task again with a newer one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from miner.net.addresses import Refused
from miner.task.stages import PresignedPut, TemporaryS3

SKEW = 900.0  # seconds that a signer's clock may differ, as S3 itself allows

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110's token
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]{0,4096}")
# They decide where a request goes and where its body ends.
_OUR_HEADERS = re.compile(
    r"connection|content-length|expect|host|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade", re.IGNORECASE
)
_MAX_HEADERS = 32
_FIRST = frozenset({"AWSAccessKeyId", "GoogleAccessId"})  # in URLs signed by the first versions
_CREDENTIAL = re.compile(r"[!-~]{1,4096}")
# The parameters of a signed URL: when it was signed, for how many seconds it holds; or when it expires.
_SPANS = (("X-Amz-Date", "X-Amz-Expires"), ("X-Goog-Date", "X-Goog-Expires"))
_ENDS = (("Expires", "Signature"), ("se", "sig"))  # S3's first version, CloudFront, Google; Azure


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The target's headers, once none can end a line or change where and how the body is sent. Raises Refused.

    Blanks around a value do not count (RFC 9110, 5.5), so they are not sent.
    """
    if len(headers) > _MAX_HEADERS:
        raise Refused(f"it has more than {_MAX_HEADERS} headers")
    if len({name.lower() for name in headers}) < len(headers):
        raise Refused("it names a header twice")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise Refused("one of its headers is not valid HTTP")
        if _OUR_HEADERS.fullmatch(name):
            raise Refused(f"a target may not set the header {name}")
    return {name: value.strip(" \t") for name, value in headers.items()}


def content_type(target: PresignedPut, content_type: str) -> dict[str, str]:
    """The header with the file's media type, for a target that names none and whose signature does not forbid one.

    The first versions of S3's and Google's signatures are over this header, and a URL that was made without one takes
    none. Version 4 leaves it out, or names it among the signed headers.
    """
    query = parse_qs(urlsplit(target.url).query, keep_blank_values=True)
    if not _FIRST.isdisjoint(query) or any(name.lower() == "content-type" for name in target.headers):
        return {}
    return {"Content-Type": content_type}


def check_credentials(target: TemporaryS3) -> None:
    """Raises Refused."""
    if not all(map(_CREDENTIAL.fullmatch, (target.access_key_id, target.secret_access_key, target.session_token))):
        raise Refused("the S3 credentials contain invalid characters")


def check_not_expired(url: str, *, now: float) -> None:
    """Raises Refused for a signed URL that expired more than SKEW before `now` (Unix seconds by its clock)."""
    ends = expires_at(url)
    if ends is not None and now - ends > SKEW:
        raise Refused(f"its signed URL expired {(now - ends) / 60:.0f} minutes ago")


def expires_at(url: str) -> float | None:
    """When a signed URL expires, Unix seconds; None if it does not tell in a way that is known."""
    try:
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        for date, span in _SPANS:
            if date in query and span in query:
                signed = datetime.strptime(query[date], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed.timestamp() + int(query[span])
        for end, signature in _ENDS:
            if end in query and signature in query:
                return float(query[end]) if query[end].isdecimal() else _iso(query[end])
    except (ValueError, OverflowError):
        pass
    return None


def _iso(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
