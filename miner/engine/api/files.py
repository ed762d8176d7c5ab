"""Uploads into the folders, and views out of them."""

from __future__ import annotations

import mimetypes
from pathlib import Path, PurePosixPath

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from miner.engine.api.body import BROKEN, read_form
from miner.engine.folders import annotation, inside
from miner.engine.state import engine_of

_ACTIVE = frozenset({"text/html", "application/xhtml+xml", "text/javascript", "text/css", "image/svg+xml", "text/xml"})
"""What a browser would run; it is sent as mere bytes."""


async def upload(request: Request) -> Response:
    """Keep an image under its name, or under `name (1).png` where another image has that name already."""
    parts = await read_form(request)
    fields = {name: part.text for name, part in parts.items() if part.filename is None}
    image = parts.get("image")
    if image is None:
        return Response(status_code=400)
    kind, subfolder = fields.get("type", "input"), fields.get("subfolder", "")
    root = engine_of(request).folders.of(kind)
    if root is None or not image.filename:
        raise BROKEN
    path = inside(root, str(PurePosixPath(subfolder, image.filename)))
    if path is None:
        return Response(status_code=400)
    overwrite = fields.get("overwrite") in ("true", "1")
    name = await run_in_threadpool(_keep, path, image.data, overwrite=overwrite)
    return JSONResponse({"name": name, "subfolder": subfolder, "type": kind})


def _keep(path: Path, data: bytes, *, overwrite: bool) -> str:
    """The name that it was kept under, which is an old one where the same bytes are there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, number = path, 0
    while not overwrite and path.exists():
        if path.read_bytes() == data:
            return path.name
        number += 1
        path = first.with_name(f"{first.stem} ({number}){first.suffix}")
    path.write_bytes(data)
    return path.name


async def view(request: Request) -> Response:
    """A file as it is. `preview` and `channel`, which convert images in ComfyUI, are ignored."""
    query = request.query_params
    if "filename" not in query:
        return Response(status_code=404)
    name, marked = annotation(query["filename"])
    root = engine_of(request).folders.of(marked or query.get("type", "output"))
    if not name or name.startswith("/") or ".." in name or root is None:
        return Response(status_code=400)
    subfolder = query.get("subfolder", "")
    if inside(root, subfolder) is None:
        return Response(status_code=403)
    path = inside(root, str(PurePosixPath(subfolder, PurePosixPath(name).name)))
    if path is None or not path.is_file():
        return Response(status_code=404)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    shown = path.name.replace("\\", "\\\\").replace('"', '\\"')
    return FileResponse(
        path,
        media_type="application/octet-stream" if kind in _ACTIVE else kind,
        headers={"Content-Disposition": f'filename="{shown}"', "X-Content-Type-Options": "nosniff"},
    )


ROUTES = (Route("/upload/image", upload, methods=["POST"]), Route("/view", view))
