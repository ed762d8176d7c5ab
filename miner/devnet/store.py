"""The object store over plain HTTP: results by signed URL, inputs by a URL that cannot be guessed.

It promises that an object is what was sent, all of it: a body without a length is refused, and one that breaks off
leaves nothing. Bodies are streamed both ways. What it serves is never run by a browser.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from email.utils import formatdate
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from miner.devnet.blobs import Stored
from miner.devnet.formats import HEAD, UNTOLD, format_of
from miner.devnet.state import devnet_of
from miner.devnet.wire import Refusal

INPUTS = ".inputs"
"""The bucket of consumers' inputs."""

_PASSIVE = {"x-content-type-options": "nosniff", "content-security-policy": "default-src 'none'; sandbox"}


class _File(FileResponse):
    chunk_size = 1 << 20  # bytes; a video is half a gigabyte


async def store_put(request: Request) -> Response:
    """`PUT` of a result to the `upload_url` of a task."""
    devnet = devnet_of(request)
    bucket, key = request.path_params["bucket"], request.path_params["key"]
    devnet.targets.check("PUT", bucket, key, request.query_params, now=devnet.clock())
    for name, value in devnet.options.upload_headers.items():
        if request.headers.get(name) != value:
            raise Refusal(403, f"header {name} is not the one of upload_headers")
    devnet.targets.refuse_if_answered(devnet.targets.task_of(key))
    _check_length(request)
    blob = await devnet.blobs.receive(_body(request))
    devnet.blobs.put(bucket, key, blob, content_type=_told_type(request, devnet.blobs.head(blob, HEAD)))
    return Response(headers={"etag": f'"{blob.file}"'})


async def store_get(request: Request) -> Response:
    """`GET` of a result by its URL."""
    devnet = devnet_of(request)
    bucket, key = request.path_params["bucket"], request.path_params["key"]
    devnet.targets.check("GET", bucket, key, request.query_params, now=devnet.clock())
    return _serve(devnet.blobs.find(bucket, key))


async def input_put(request: Request) -> Response:
    """`PUT` of a consumer's file. Gives the `url` that a task can name."""
    devnet = devnet_of(request)
    _check_length(request)
    key = f"{secrets.token_urlsafe(12)}/{request.path_params['name']}"
    blob = await devnet.blobs.receive(_body(request))
    devnet.blobs.put(INPUTS, key, blob, content_type=_type(request))
    return JSONResponse({"url": f"{base_url(request)}/inputs/{quote(key)}"}, status_code=201)


async def input_get(request: Request) -> Response:
    """`GET` of an input by its URL."""
    key = f"{request.path_params['folder']}/{request.path_params['name']}"
    return _serve(devnet_of(request).blobs.find(INPUTS, key))


def _serve(stored: Stored | None) -> Response:
    """An object, or the part of it that `Range` names. Raises Refusal with 404."""
    if stored is None:
        raise Refusal(404, "there is no such object", counted=False)
    modified = formatdate(stored.stored_at, usegmt=True)
    return _File(
        stored.path,
        media_type=stored.content_type,
        headers={"etag": f'"{stored.file}"', "last-modified": modified, **_PASSIVE},
    )


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The request's body as it comes. Raises ClientDisconnect where it breaks off."""
    async for chunk in request.stream():
        yield chunk


def _check_length(request: Request) -> None:
    """A body says how long it is, as S3 wants it. Raises Refusal: 411 or 413."""
    length, limit = request.headers.get("content-length"), devnet_of(request).options.max_object_mb
    if length is None:
        raise Refusal(411, "Content-Length is missing; an object store takes no chunked body")
    if int(length) > limit * 1e6:
        raise Refusal(413, f"the object is larger than {limit:g} MB")


def _type(request: Request) -> str:
    """The media type that the object is to have."""
    return request.headers.get("content-type") or "application/octet-stream"


def _told_type(request: Request, head: bytes) -> str:
    """The media type that the client said, or that of the file where it said none."""
    said = _type(request)
    return format_of(head, said).media_type if said.partition(";")[0].strip().lower() in UNTOLD else said


def base_url(request: Request) -> str:
    """The URL under which the caller reached us, or the one that is configured; no slash at the end."""
    return devnet_of(request).options.public_url.rstrip("/") or f"http://{request.headers['host']}"
