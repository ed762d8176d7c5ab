"""AWS Signature Version 4 of one request, with temporary credentials. Pure.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. S3 takes it without the
body's hash, so that a body can be streamed: TLS protects it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from miner.task.stages import TemporaryS3

UNSIGNED = "UNSIGNED-PAYLOAD"


def object_url(endpoint: str, bucket: str, key: str) -> str:
    """The URL of an object, in path style. Raises ValueError for a key that some store would change."""
    if not key.isprintable() or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError("not a key")
    return f"{endpoint}/{quote(bucket, safe='')}/{quote(key, safe='/-._~')}"


def signed(
    method: str,
    url: str,
    credential: TemporaryS3,
    *,
    region: str,
    host: str,
    at: float,
    payload: str,
    service: str = "s3",
) -> Mapping[str, str]:
    """The headers for a request to `url`, signed at Unix time `at`. `host`: the Host header that will be sent.

    Names and values in the URL's query are percent-encoded already, all but letters, digits and `-._~`.
    `payload`: the SHA-256 of the body in hex, or UNSIGNED for S3.
    """
    stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "host": host,
        "x-amz-content-sha256": payload,
        "x-amz-date": stamp,
        "x-amz-security-token": credential.session_token,
    }
    names = ";".join(headers)  # sorted
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    path, query = urlsplit(url).path or "/", urlsplit(url).query
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
    path = path if service == "s3" else quote(path, safe="/-._~")  # S3 alone has it encoded once
    request = "\n".join((method, path, "&".join(map("=".join, pairs)), lines, names, payload))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{credential.secret_access_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    claim = f"Credential={credential.access_key_id}/{scope}, SignedHeaders={names}, Signature={_hmac(key, text).hex()}"
    del headers["host"]
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {claim}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
