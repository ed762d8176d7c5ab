"""A consumer's picture on its way to a task.

A sequencer on this machine that has a store, as devnet does, gets the picture there; elsewhere it travels inside the
task as a `data:` URI, if it is small enough.
"""

from __future__ import annotations

import base64
import hashlib
import io
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from miner.sdk.errors import APIError, InvalidTask
from miner.sdk.replies import Reply
from miner.sdk.transport import call_of, open_session, send

TRANSFER_TIMEOUT = 60.0  # seconds of silence
DATA_LIMIT = 500_000  # bytes of a picture inside a task: every miner takes it, and no sequencer is known to mind


def image_url(path: Path, *, workflow_url: str) -> str:
    """A URL of the picture at `path` that a task can name. Blocks on the network.

    Raises InvalidTask for a file that is not a picture or too large, WorkflowError if the sequencer does not answer.
    """
    data, mime = _read_picture(path)
    if _is_local(workflow_url) and (url := _stored(workflow_url, data, mime)):
        return url
    if len(data) > DATA_LIMIT:
        raise InvalidTask(
            f"{path} has {len(data) / 1000:.0f} KB; a picture inside a task may have {DATA_LIMIT / 1000:.0f}: "
            "upload it somewhere public, and pass its URL"
        )
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _read_picture(path: Path) -> tuple[bytes, str]:
    """The file's bytes and their MIME type, by its content."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            mime = picture.get_format_mimetype()
    except (OSError, Image.DecompressionBombError) as error:  # Pillow's UnidentifiedImageError is an OSError
        raise InvalidTask(f"{path} cannot be sent as a picture: {error}") from error
    if not mime or not mime.startswith("image/"):
        raise InvalidTask(f"{path} cannot be sent as a picture: use PNG, JPEG or WebP")
    return data, mime


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _stored(workflow_url: str, data: bytes, mime: str) -> str | None:
    """The picture's URL in the sequencer's store; None for a sequencer that refuses it, having no store."""
    # Named by its content, so that two pictures of one name do not overwrite each other.
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.{mime.removeprefix('image/')}"
    url = f"{workflow_url}/inputs/{name}"
    try:
        with open_session() as session:
            reply = send(session, "PUT", url, body=data, content_type=mime, timeout=TRANSFER_TIMEOUT)
    except APIError as error:
        if error.transient:
            raise
        return None
    return Reply(reply.content, call=call_of("PUT", url), status=reply.status_code).text("url")
