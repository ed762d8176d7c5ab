"""Reads request bodies, bounded: JSON, and the forms that uploads come in."""

from __future__ import annotations

import email
import json
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from miner.engine.state import engine_of

BROKEN = HTTPException(500, "500 Internal Server Error\n\nServer got itself in trouble")
"""What ComfyUI answers to a body that it did not expect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A field of a form. `filename` None: no file."""

    data: bytes
    filename: str | None

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


async def read(request: Request) -> bytes:
    """The whole body. 413 as soon as it is longer than the engine takes."""
    most = engine_of(request).max_upload
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"Maximum request body size {most} exceeded.")
    return bytes(body)


async def read_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object. Anything else is 500, as in ComfyUI, or `{}` if the body is optional."""
    try:
        found = json.loads(await read(request))
    except ValueError as error:
        if optional:
            return {}
        raise BROKEN from error
    if not isinstance(found, dict):
        raise BROKEN
    return found


async def read_form(request: Request) -> dict[str, Part]:
    """The parts of a multipart form by name, of equal names the first. Empty if the body is not such a form."""
    header = email.message_from_string(f"Content-Type: {request.headers.get('content-type', '')}\n\n")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        return {}
    parts: dict[str, Part] = {}
    for chunk in (b"\r\n" + await read(request)).split(b"\r\n--" + boundary.encode())[1:]:
        if chunk.startswith(b"--"):  # the last boundary
            break
        head, _, data = chunk.partition(b"\r\n\r\n")
        headers = email.message_from_string(head.decode("utf-8", errors="replace").lstrip())
        name = headers.get_param("name", header="content-disposition")
        if isinstance(name, str):
            parts.setdefault(name, Part(data=data, filename=headers.get_filename()))
    return parts
