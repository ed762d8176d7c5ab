"""The part of S3 that an upload needs, path-style under `/s3`, with temporary credentials.

PutObject, GetObject, HeadObject and multipart uploads are there, and their errors look as in S3; the rest answers
`NotImplemented`. It promises that credentials write one task's object only, and that every signature and every signed
body is checked. Source: the Amazon S3 API reference.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from starlette.requests import Request
from starlette.responses import Response

from miner.devnet.blobs import Blob, DigestMismatch
from miner.devnet.database import transaction
from miner.devnet.sequencer import key_is_of
from miner.devnet.sigv4 import UNSIGNED, BadSignature, SignedRequest
from miner.devnet.state import Devnet, devnet_of
from miner.devnet.store import body_of, check_length, serve_object, type_of
from miner.devnet.wire import Refusal

MIN_PART_BYTES = 5 << 20
"""Every part but the last is at least this long, in S3."""

_LISTING_BYTES = 1 << 20


class S3Refusal(Refusal):
    """A refusal in S3's words: a status, a code, a reason."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, message, counted=status != 404)
        self.code = code


async def s3_put(request: Request) -> Response:
    """PutObject and UploadPart."""
    devnet, digest = _admit(request)
    check_length(request, devnet.options)
    upload_id, number = request.query_params.get("uploadId"), request.query_params.get("partNumber")
    if upload_id is None:
        blob = await _receive(request, devnet, digest)
        devnet.blobs.put(*_place(request), blob, content_type=type_of(request))
        return Response(headers={"etag": _etag(blob.file)})
    _find_multipart(devnet, request, upload_id)
    if number is None or not number.isdecimal() or not 1 <= int(number) <= 10_000:
        raise S3Refusal(400, "InvalidArgument", "partNumber must be 1 to 10000")
    blob = await _receive(request, devnet, digest)
    _keep_part(devnet, upload_id, int(number), blob)
    return Response(headers={"etag": _etag(blob.file)})


async def s3_post(request: Request) -> Response:
    """CreateMultipartUpload and CompleteMultipartUpload."""
    devnet, digest = _admit(request)
    bucket, key = _place(request)
    if "uploads" in request.query_params:
        upload_id = secrets.token_urlsafe(24)
        devnet.db.execute("INSERT INTO multiparts VALUES (?, ?, ?, ?)", (upload_id, bucket, key, type_of(request)))
        return _xml("InitiateMultipartUploadResult", Bucket=bucket, Key=key, UploadId=upload_id)
    if "uploadId" not in request.query_params:
        raise S3Refusal(501, "NotImplemented", "only multipart uploads are posted")
    upload_id = request.query_params["uploadId"]
    content_type = _find_multipart(devnet, request, upload_id)
    files = _chosen_parts(devnet, upload_id, _listed_parts(await _read_listing(request, digest)))
    blob = await devnet.blobs.join(files)
    devnet.blobs.put(bucket, key, blob, content_type=content_type)
    _forget_multipart(devnet, upload_id)
    return _xml("CompleteMultipartUploadResult", Bucket=bucket, Key=key, ETag=_etag(blob.file))


async def s3_delete(request: Request) -> Response:
    """AbortMultipartUpload."""
    devnet, _ = _admit(request)
    upload_id = request.query_params.get("uploadId")
    if upload_id is None:
        raise S3Refusal(403, "AccessDenied", "these credentials delete no object")
    _find_multipart(devnet, request, upload_id)
    _forget_multipart(devnet, upload_id)
    return Response(status_code=204)


async def s3_get(request: Request) -> Response:
    """GetObject and HeadObject."""
    devnet, _ = _admit(request)
    return serve_object(devnet.blobs.find(*_place(request)))


def _admit(request: Request) -> tuple[Devnet, str]:
    """Check signature, session and right of a request. Gives the digest that its body must have, too."""
    devnet = devnet_of(request)
    signed = SignedRequest(
        method=request.method,
        path=request.scope["raw_path"].decode("ascii"),
        query=request.url.query,
        headers=dict(request.headers),
    )
    try:
        credential = devnet.targets.credential(signed.access_key_id)
        if credential is None:
            raise S3Refusal(403, "InvalidAccessKeyId", "the access key is not known")
        now = devnet.clock()
        digest = signed.check(secret=credential.secret_access_key, token=credential.session_token, now=now)
    except BadSignature as error:
        raise S3Refusal(403, "SignatureDoesNotMatch", str(error)) from None
    if credential.expires_at < now:
        raise S3Refusal(400, "ExpiredToken", "the credentials have expired")
    bucket, key = _place(request)
    if bucket != devnet.options.bucket:
        raise S3Refusal(404, "NoSuchBucket", f"there is no bucket {bucket}; results go to {devnet.options.bucket}")
    if not key_is_of(key, miner_id=credential.miner_id, task_id=credential.task_id):
        wanted = f"<prefix>/<workflow>-{credential.miner_id}-{credential.task_id}.<format>"
        raise S3Refusal(403, "AccessDenied", f"these credentials are for {wanted}, and not for {key}")
    if request.method in ("PUT", "POST"):
        devnet.targets.refuse_if_answered(credential.task_id)
    return devnet, digest


async def _receive(request: Request, devnet: Devnet, digest: str) -> Blob:
    try:
        return await devnet.blobs.receive(body_of(request), sha256=None if digest == UNSIGNED else digest)
    except DigestMismatch:
        raise _other_body() from None


def _other_body() -> S3Refusal:
    return S3Refusal(400, "XAmzContentSHA256Mismatch", "the body is not the one that was signed")


def _place(request: Request) -> tuple[str, str]:
    return request.path_params["bucket"], request.path_params["key"]


def _etag(file: str) -> str:
    return f'"{file}"'


def _find_multipart(devnet: Devnet, request: Request, upload_id: str) -> str:
    """The content type of a multipart upload of the object that the request names."""
    row = devnet.db.execute(
        "SELECT content_type FROM multiparts WHERE upload_id = ? AND bucket = ? AND key = ?",
        (upload_id, *_place(request)),
    ).fetchone()
    if row is None:
        raise S3Refusal(404, "NoSuchUpload", "the multipart upload is not known, or it ended")
    content_type: str = row["content_type"]
    return content_type


def _keep_part(devnet: Devnet, upload_id: str, number: int, blob: Blob) -> None:
    old = devnet.db.execute("SELECT file FROM parts WHERE upload_id = ? AND number = ?", (upload_id, number)).fetchone()
    devnet.db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", (upload_id, number, blob.file, blob.size))
    if old is not None:
        devnet.blobs.discard(old["file"])


def _forget_multipart(devnet: Devnet, upload_id: str) -> None:
    files = devnet.db.execute("SELECT file FROM parts WHERE upload_id = ?", (upload_id,)).fetchall()
    with transaction(devnet.db):
        devnet.db.execute("DELETE FROM parts WHERE upload_id = ?", (upload_id,))
        devnet.db.execute("DELETE FROM multiparts WHERE upload_id = ?", (upload_id,))
    for row in files:
        devnet.blobs.discard(row["file"])


async def _read_listing(request: Request, digest: str) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LISTING_BYTES:
            raise S3Refusal(400, "MalformedXML", f"the list of parts is longer than {_LISTING_BYTES} bytes")
    if digest not in (UNSIGNED, hashlib.sha256(body).hexdigest()):
        raise _other_body()
    return bytes(body)


def _listed_parts(body: bytes) -> list[tuple[int, str]]:
    """(number, etag) of each part in a CompleteMultipartUpload document, whatever its namespace."""
    try:
        root = ET.fromstring(body)  # noqa: S314  signed by who holds our credentials, and bounded
        return [
            (int(part.findtext("{*}PartNumber", "")), part.findtext("{*}ETag", "")) for part in root.findall("{*}Part")
        ]
    except (ET.ParseError, ValueError):
        raise S3Refusal(400, "MalformedXML", "the list of parts cannot be read") from None


def _chosen_parts(devnet: Devnet, upload_id: str, listed: Sequence[tuple[int, str]]) -> list[str]:
    """The files of the listed parts, in their order."""
    rows = devnet.db.execute("SELECT * FROM parts WHERE upload_id = ?", (upload_id,))
    parts: dict[int, Any] = {row["number"]: row for row in rows}
    numbers = [number for number, _ in listed]
    if not listed or numbers != sorted(set(numbers)):
        raise S3Refusal(400, "InvalidPartOrder", "parts must be listed once each, in ascending order")
    for number, etag in listed:
        if number not in parts or etag.strip('"') != parts[number]["file"]:
            raise S3Refusal(400, "InvalidPart", f"part {number} was not uploaded, or has another ETag")
    if any(parts[number]["size"] < MIN_PART_BYTES for number in numbers[:-1]):
        raise S3Refusal(400, "EntityTooSmall", f"every part but the last must have {MIN_PART_BYTES} bytes")
    return [parts[number]["file"] for number in numbers]


def _xml(name: str, **fields: str) -> Response:
    root = ET.Element(name, xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for key, value in fields.items():
        ET.SubElement(root, key).text = value
    return Response(ET.tostring(root, encoding="utf-8", xml_declaration=True), media_type="application/xml")


def error_document(refusal: Refusal) -> Response:
    """The reply to a refused call."""
    code = refusal.code if isinstance(refusal, S3Refusal) else "InvalidRequest"
    response = _xml("Error", Code=code, Message=refusal.message)
    response.status_code = refusal.status
    return response
