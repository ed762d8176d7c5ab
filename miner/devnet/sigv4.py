"""AWS Signature Version 4, the checking side, for a request with an `Authorization` header.

It promises to accept a request only if whoever sent it knew the secret, and nothing that the signature covers was
changed. Pure: no I/O and no clock. Source: "Create a signed AWS API request" of AWS's IAM user guide.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

MAX_SKEW = 900.0
"""Seconds between the signer's clock and ours, as in S3."""

UNSIGNED = "UNSIGNED-PAYLOAD"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/s3/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


class BadSignature(Exception):
    """The request is not signed as it must be; the text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """What of a request the signature covers. Header names are in lower case; `path` is as sent, percent-encoded."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def access_key_id(self) -> str:
        """Whose signature it claims to be. Raises BadSignature where there is none."""
        return self._authorization()["key"]

    def check(self, *, secret: str, token: str, now: float) -> str:
        """The SHA-256 that the body must have, in hex, or UNSIGNED. Raises BadSignature."""
        claim = self._authorization()
        signed = claim["headers"].split(";")
        self._check_headers(signed, token)
        when = self._check_time(now, claim["day"])
        scope = f"{claim['day']}/{claim['region']}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(self._canonical(signed).encode()).hexdigest()}"
        key = f"AWS4{secret}".encode()
        for part in (claim["day"], claim["region"], "s3", "aws4_request", text):
            key = hmac.digest(key, part.encode(), "sha256")
        if not hmac.compare_digest(key.hex(), claim["signature"]):
            raise BadSignature("the signature is not the one that this request has with this key")
        return self._body_digest()

    def _authorization(self) -> re.Match[str]:
        found = _AUTHORIZATION.fullmatch(self.headers.get("authorization", ""))
        if found is None:
            raise BadSignature("there is no Authorization header of AWS4-HMAC-SHA256 for s3")
        return found

    def _check_headers(self, signed: list[str], token: str) -> None:
        must = {"host", *(name for name in self.headers if name.startswith("x-amz-"))}
        missing = sorted(must - set(signed)) or sorted(name for name in signed if name not in self.headers)
        if missing:
            raise BadSignature(f"header {missing[0]} is not both sent and signed")
        if not hmac.compare_digest(self.headers.get("x-amz-security-token", "").encode(), token.encode()):
            raise BadSignature("the session token is not the one of this key")

    def _check_time(self, now: float, day: str) -> str:
        when = self.headers.get("x-amz-date", "")
        try:
            signed_at = datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise BadSignature("x-amz-date is not a time") from None
        if not when.startswith(day) or abs(now - signed_at) > MAX_SKEW:
            raise BadSignature(f"x-amz-date {when} is more than {MAX_SKEW:g} s from now, or is of another day")
        return when

    def _body_digest(self) -> str:
        digest = self.headers.get("x-amz-content-sha256", "")
        if digest != UNSIGNED and not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise BadSignature(f"x-amz-content-sha256 is {digest or 'missing'}; a hex digest or {UNSIGNED} is taken")
        return digest

    def _canonical(self, signed: list[str]) -> str:
        headers = "".join(f"{name}:{' '.join(self.headers[name].split())}\n" for name in signed)
        return "\n".join(
            (
                self.method,
                _encoded(self.path, safe="/"),
                "&".join(sorted(_pair(part) for part in self.query.split("&") if part)),
                headers,
                ";".join(signed),
                self.headers.get("x-amz-content-sha256", ""),
            )
        )


def _pair(part: str) -> str:
    name, _, value = part.partition("=")
    return f"{_encoded(name)}={_encoded(value)}"


def _encoded(text: str, *, safe: str = "") -> str:
    """Percent-encoded the one way that the signature knows, however it was encoded before."""
    return quote(unquote_to_bytes(text), safe=f"{safe}-_.~")
